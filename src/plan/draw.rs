//! Renders a graph as text: for a terminal, for Graphviz, for Mermaid.

use std::fmt::Write;

use super::Graph;

/// One line per stage, in execution order: id, `use:` name, and its inputs.
pub fn text(graph: &Graph) -> String {
    let width = |of: fn(&super::Node) -> &str| graph.stages().map(|node| of(node).len()).max().unwrap_or(0);
    let (ids, names) = (width(|node| node.id.as_str()), width(|node| &node.stage));
    let mut text = String::new();
    for &index in graph.order() {
        let node = graph.stage(index);
        let reads: Vec<_> = sources(graph, index).iter().map(|&from| graph.stage(from).id.as_str()).collect();
        let line = format!("{:ids$}  {:names$}  {}", node.id.as_str(), node.stage, arrow(&reads));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The graph in Graphviz' language.
pub fn dot(graph: &Graph) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::from("digraph pipeline {\n  rankdir=LR;\n  node [shape=box];\n");
    for node in graph.stages() {
        let (id, name) = (quoted(node.id.as_str()), quoted(&node.stage));
        let _ = writeln!(text, "  {id} [label={id} xlabel={name}];");
    }
    for edge in graph.edges() {
        let [from, to] = [edge.from, edge.to].map(|index| quoted(graph.stage(index).id.as_str()));
        let _ = writeln!(text, "  {from} -> {to} [label={}];", quoted(&edge.input));
    }
    text + "}\n"
}

/// The graph in Mermaid's language, which GitHub renders.
pub fn mermaid(graph: &Graph) -> String {
    let plain = |text: &str| text.replace(['"', '<', '>', '|', '`'], "_");
    let mut text = String::from("flowchart LR\n");
    for (index, node) in graph.stages().enumerate() {
        let _ = writeln!(text, "  s{index}[\"{}<br/>{}\"]", plain(node.id.as_str()), plain(&node.stage));
    }
    for edge in graph.edges() {
        let _ = writeln!(text, "  s{} -->|{}| s{}", edge.from, plain(&edge.input), edge.to);
    }
    text
}

/// The stages that a stage reads, without duplicates.
pub(super) fn sources(graph: &Graph, index: usize) -> Vec<usize> {
    let mut sources: Vec<_> = graph.inputs(index).into_iter().map(|(_, from)| from).collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

fn arrow(reads: &[&str]) -> String {
    if reads.is_empty() { String::new() } else { format!("<- {}", reads.join(", ")) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::plan::testing::resolve;

    /// `m` is read by `p`, and twice by `e`, which is two layers away.
    pub(in crate::plan) fn graph() -> Graph {
        let text = "format: 1\nname: t\nstages:\n\
            - { id: m, use: load, with: { model: x } }\n\
            - { id: p, use: select, with: { model: m } }\n\
            - { id: q, use: select, with: { model: m, after: p } }\n\
            - { id: e, use: evaluate, with: { models: { one: m, two: m } } }\n";
        resolve(text).expect("the pipeline is right").graph
    }

    #[test]
    fn the_terminal_shows_what_each_stage_reads() {
        assert_eq!(text(&graph()), "m  load\np  select    <- m\nq  select    <- m, p\ne  evaluate  <- m\n");
    }

    #[test]
    fn every_reference_is_an_edge() {
        let dot = dot(&graph());
        assert!(dot.contains("\"p\" -> \"q\" [label=\"after\"];"), "{dot}");
        assert_eq!(dot.matches(" -> ").count(), 5);
        let mermaid = mermaid(&graph());
        assert!(mermaid.contains("s1 -->|after| s2"), "{mermaid}");
    }
}
