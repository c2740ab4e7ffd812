//! Resolves references: each input of a stage becomes an edge, or an error that underlines it.

use std::collections::HashMap;

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::expand::PlannedStage;
use super::graph::{Edge, Graph, Node};
use crate::base::StageId;
use crate::config::ConfigErrorKind;
use crate::stage::Input;

/// A reference that does not resolve to an artefact of the right kind: the stage with the input, the input, and the
/// error.
pub(super) type BadReference = (usize, String, Box<ConfigErrorKind>);

/// The graph of all stages.
pub(super) fn resolve(stages: &[PlannedStage]) -> Result<Graph, BadReference> {
    let by_id: HashMap<&StageId, usize> =
        stages.iter().enumerate().map(|(index, planned)| (&planned.id, index)).collect();
    let mut edges = Vec::new();
    for (to, planned) in stages.iter().enumerate() {
        for (input, read) in planned.stage.inputs().into_iter().zip(&planned.reads) {
            let from = read.as_ref().and_then(|id| by_id.get(id).copied());
            let from = source(stages, planned, &input, from)
                .map_err(|kind| (to, input.name.clone(), Box::new(kind)))?;
            edges.push(Edge { from, to, input: input.name });
        }
    }
    let graph = Graph::new(stages.iter().map(PlannedStage::node), edges);
    if graph.order().len() < stages.len() { Err(cycle(&graph.graph)) } else { Ok(graph) }
}

/// The stage that an input names, if it exists and produces the right kind of artefact.
fn source(
    stages: &[PlannedStage],
    reader: &PlannedStage,
    input: &Input<'_>,
    from: Option<usize>,
) -> Result<usize, ConfigErrorKind> {
    let (stage, parameter, found) = (reader.id.to_string(), input.name.clone(), input.stage.to_string());
    let others = |fits: &dyn Fn(&PlannedStage) -> bool| {
        let mut ids: Vec<String> = Vec::new();
        for other in stages.iter().filter(|other| other.origin != reader.origin && fits(other)) {
            if !ids.iter().any(|id| id == other.origin.as_str()) {
                ids.push(other.origin.to_string());
            }
        }
        ids
    };
    let Some(from) = from else {
        return Err(ConfigErrorKind::UnknownId { stage, parameter, found, known: others(&|_| true) });
    };
    let info = stages[from].stage.info();
    if !input.kinds.contains(&info.output) {
        let fitting = others(&|other| input.kinds.contains(&other.stage.info().output));
        let (found, fitting) = (found.into(), fitting.into());
        let (name, made, needed) = (info.name.into(), info.output, input.kinds);
        return Err(ConfigErrorKind::WrongKind { stage, parameter, needed, found, name, made, fitting });
    }
    Ok(from)
}

/// A cycle as text, and the reference that closes it, as a stage and its parameter.
fn cycle(graph: &DiGraph<Node, String>) -> BadReference {
    let on_itself = |nodes: &Vec<NodeIndex>| nodes.len() > 1 || graph.contains_edge(nodes[0], nodes[0]);
    let circle = tarjan_scc(graph).into_iter().find(on_itself).expect("a graph without an order has a cycle");
    let start = *circle.iter().min().expect("a component is not empty");
    // Inside a strongly connected component every stage reads another stage of it, so following the references must
    // return.
    let mut path = vec![start];
    let closing = loop {
        let reader = path[path.len() - 1];
        let reads =
            graph.edges_directed(reader, Direction::Incoming).filter(|edge| circle.contains(&edge.source()));
        let edge = reads.min_by_key(|edge| edge.id()).expect("a stage on a cycle reads another on it");
        if let Some(seen) = path.iter().position(|&node| node == edge.source()) {
            path.drain(..seen);
            path.push(edge.source());
            break edge;
        }
        path.push(edge.source());
    };
    let ids: Vec<_> = path.iter().map(|&node| format!("`{}`", graph[node].id)).collect();
    let kind = ConfigErrorKind::Cycle { path: ids.join(" reads ") };
    (closing.target().index(), closing.weight().clone(), Box::new(kind))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use miette::Diagnostic;

    use super::*;
    use crate::config::ConfigError;
    use crate::plan::testing::resolve;

    const HEAD: &str = "format: 1\nname: t\nstages:\n";

    fn graph(stages: &str) -> Result<Graph, ConfigError> {
        Ok(resolve(&format!("{HEAD}{stages}"))?.graph)
    }

    #[test]
    fn runs_in_file_order_where_references_allow() {
        let graph = graph(
            "- { id: b, use: select, with: { model: m, after: a } }\n\
             - { id: m, use: load, with: { model: x } }\n\
             - { id: a, use: select, with: { model: m } }\n\
             - { id: e, use: evaluate, with: { models: { one: m, two: m } } }\n",
        )
        .expect("the references are valid");
        assert_eq!(graph.order(), [1, 2, 0, 3]);
        assert_eq!(graph.inputs(0), [("model", 1), ("after", 2)]);
        assert_eq!(graph.inputs(3), [("models.one", 1), ("models.two", 1)]);
        assert_eq!(graph.with_ancestors(2), BTreeSet::from([1, 2]));
        assert_eq!(graph.with_descendants(2), BTreeSet::from([0, 2]));

        let text = serde_json::to_string(&graph).expect("a graph can be serialised");
        let again: Graph = serde_json::from_str(&text).expect("and deserialised");
        assert_eq!((again.order(), again.edges()), (graph.order(), graph.edges()));
    }

    #[track_caller]
    fn expect(stages: &str, code: &str, place: (usize, usize), words: &[&str]) {
        let error = graph(stages).expect_err("the references are wrong");
        let text = format!("{error}; {}", error.help().map(|help| help.to_string()).unwrap_or_default());
        assert_eq!(error.code().map(|code| code.to_string()).as_deref(), Some(code));
        assert_eq!(error.position(), Some(place), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }

    #[test]
    fn wrong_references_are_underlined() {
        let load = "- { id: teacher, use: load, with: { model: x } }\n";
        expect(
            &format!("{load}- {{ id: p, use: select, with: {{ model: techer }} }}"),
            "pipeline::unknown_id",
            (5, 40),
            &["`model` of `p`", "did you mean `teacher`"],
        );
        expect(
            &format!("{load}- {{ id: p, use: select, with: {{ model: teacher, after: teacher }} }}"),
            "pipeline::wrong_kind",
            (5, 56),
            &[
                "needs a selection artefact",
                "(use: load) makes a model artefact",
                "no stage of this pipeline",
            ],
        );
        expect(
            &format!(
                "{load}- {{ id: e, use: evaluate, with: {{ models: {{ one: teacher, two: tacher }} }} }}"
            ),
            "pipeline::unknown_id",
            (5, 64),
            &["`models.two` of `e`"],
        );
    }

    #[test]
    fn a_branch_reads_the_branches_with_its_values() {
        let stages = "- { id: m, use: load, with: { model: x } }\n\
             - { id: n, use: load, with: { model: x } }\n\
             - { id: p, use: select, with: { model: m } }\n\
             - { id: q, use: select, with: { model: m, after: p } }\n";
        let swept = graph(&format!("{stages}sweep: {{ p.model: [m, n], q.ratio: [0.3, 0.5] }}\n"));
        let swept = swept.expect("the references are valid");
        let named = |id: &str| swept.stages().position(|node| node.id.as_str() == id).expect(id);
        let reads = |id: &str| swept.inputs(named(id)).into_iter().map(|(_, from)| from).collect::<Vec<_>>();
        for model in ["m", "n"] {
            let p = format!("p@model={model}");
            assert_eq!(reads(&p), [named(model)]);
            assert_eq!(reads(&format!("q@model={model},ratio=0.5")), [named("m"), named(&p)]);
        }
        let folded = swept.folded();
        let ids = folded.stages().map(|node| node.id.as_str()).collect::<Vec<_>>();
        assert_eq!(ids, ["m", "n", "p × 2", "q × 4"]);
        assert_eq!(folded.inputs(3), [("model", 0), ("after", 2)]);

        let sweep = "sweep: { p.model: [m, tacher] }\n";
        expect(
            &format!("{stages}{sweep}"),
            "pipeline::unknown_id",
            (8, 23),
            &["`model` of `p@model=tacher`"],
        );
    }

    #[test]
    fn a_cycle_names_its_path() {
        let select = |id: &str, after: &str| {
            format!("- {{ id: {id}, use: select, with: {{ model: m, after: {after} }} }}\n")
        };
        let load = "- { id: m, use: load, with: { model: x } }\n";
        let stages = format!("{load}{}{}{}", select("a", "c"), select("b", "a"), select("c", "b"));
        expect(&stages, "pipeline::cycle", (6, 50), &["`a` reads `c` reads `b` reads `a`"]);
        expect(&format!("{load}{}", select("a", "a")), "pipeline::cycle", (5, 50), &["`a` reads `a`"]);
    }
}
