//! Which stage reads which: edges from references, an order to run in, and what is wrong with them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef, Reversed};
use serde::{Deserialize, Serialize};

use crate::base::{ArtefactKind, StageId};
use crate::config::{ConfigError, ConfigErrorKind, Pipeline, StageEntry};
use crate::stage::Input;

/// The stages of a pipeline, by their index in the file, and their references.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Parts", from = "Parts")]
pub struct Graph {
    graph: DiGraph<Node, String>,
    order: Vec<usize>,
}

/// A stage, as far as its shape in the graph goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its `id:`.
    pub id: StageId,
    /// Its `use:`.
    pub stage: String,
    /// What it makes.
    pub output: ArtefactKind,
    /// Of a branch of a sweep: the `id:` in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<StageId>,
}

impl Node {
    /// The `id:` in the file.
    pub fn origin(&self) -> &StageId {
        self.origin.as_ref().unwrap_or(&self.id)
    }
}

/// A reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Index of the stage whose artefact is read.
    pub from: usize,
    /// Index of the stage that reads it.
    pub to: usize,
    /// The parameter that names it: `scores`, or `models.pruned`.
    pub input: String,
}

/// The form on disk: a run's record keeps the graph, so that a report needs no pipeline file.
#[derive(Clone, Serialize, Deserialize)]
struct Parts {
    stages: Vec<Node>,
    edges: Vec<Edge>,
}

impl Graph {
    /// Resolves the references of a pipeline.
    pub fn new(pipeline: &Pipeline) -> Result<Self, ConfigError> {
        let mut graph = DiGraph::new();
        for entry in &pipeline.stages {
            let info = entry.stage.info();
            let (id, origin) = (entry.id.clone(), (entry.id != entry.origin).then(|| entry.origin.clone()));
            graph.add_node(Node { id, stage: info.name.to_owned(), output: info.output, origin });
        }
        for (to, entry) in pipeline.stages.iter().enumerate() {
            for input in entry.stage.inputs() {
                let from = resolve(&graph, &pipeline.stages, entry, &input)
                    .map_err(|kind| pipeline.error(kind, &pipeline.place(to, &input.name)))?;
                graph.add_edge(from, NodeIndex::new(to), input.name);
            }
        }
        let order = order(&graph);
        if order.len() < graph.node_count() {
            let (kind, stage, input) = cycle(&graph);
            return Err(pipeline.error(kind, &pipeline.place(stage, &input)));
        }
        Ok(Self { graph, order })
    }

    /// Indices of all stages, each after those it reads; where that leaves a choice, the file's order.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The stage with this index.
    pub fn stage(&self, index: usize) -> &Node {
        &self.graph[NodeIndex::new(index)]
    }

    /// The stages in the file's order.
    pub fn stages(&self) -> impl Iterator<Item = &Node> {
        self.graph.node_weights()
    }

    /// All references, by reader, then as the reader lists them.
    pub fn edges(&self) -> Vec<Edge> {
        let edge = |edge: petgraph::graph::EdgeReference<'_, String>| Edge {
            from: edge.source().index(),
            to: edge.target().index(),
            input: edge.weight().clone(),
        };
        self.graph.edge_references().map(edge).collect()
    }

    /// What a stage reads: the parameter's name and the index of the stage it names.
    pub fn inputs(&self, index: usize) -> Vec<(&str, usize)> {
        let edges = self.graph.edges_directed(NodeIndex::new(index), Direction::Incoming);
        let mut inputs: Vec<_> =
            edges.map(|edge| (edge.id(), edge.weight().as_str(), edge.source().index())).collect();
        inputs.sort_unstable();
        inputs.into_iter().map(|(_, name, from)| (name, from)).collect()
    }

    /// The graph with all branches of a stage as one: `selection x 24`.
    pub fn folded(&self) -> Self {
        let mut stages: Vec<(StageId, usize, Node)> = Vec::new();
        let mut place = Vec::new();
        for node in self.stages() {
            let known = stages.iter().position(|(origin, ..)| origin == node.origin());
            place.push(known.unwrap_or(stages.len()));
            match known {
                Some(index) => stages[index].1 += 1,
                None => stages.push((node.origin().clone(), 1, Node { origin: None, ..node.clone() })),
            }
        }
        let mut edges: Vec<Edge> = Vec::new();
        for edge in self.edges() {
            let edge = Edge { from: place[edge.from], to: place[edge.to], input: edge.input };
            if !edges.contains(&edge) {
                edges.push(edge);
            }
        }
        let name = |(origin, count, node): (StageId, usize, Node)| match count {
            1 => Node { id: origin, ..node },
            _ => Node { id: format!("{origin} × {count}").into(), ..node },
        };
        Parts { stages: stages.into_iter().map(name).collect(), edges }.into()
    }

    /// A stage and everything it needs: what `--until` runs.
    pub fn with_ancestors(&self, index: usize) -> BTreeSet<usize> {
        let graph = Reversed(&self.graph);
        let mut search = Dfs::new(graph, NodeIndex::new(index));
        std::iter::from_fn(|| search.next(graph)).map(NodeIndex::index).collect()
    }

    /// A stage and everything that needs it: what a failure takes with it.
    pub fn with_descendants(&self, index: usize) -> BTreeSet<usize> {
        let mut search = Dfs::new(&self.graph, NodeIndex::new(index));
        std::iter::from_fn(|| search.next(&self.graph)).map(NodeIndex::index).collect()
    }
}

impl From<Graph> for Parts {
    fn from(graph: Graph) -> Self {
        Self { edges: graph.edges(), stages: graph.graph.node_weights().cloned().collect() }
    }
}

impl From<Parts> for Graph {
    fn from(parts: Parts) -> Self {
        let mut graph = DiGraph::new();
        let nodes: Vec<_> = parts.stages.into_iter().map(|stage| graph.add_node(stage)).collect();
        for edge in parts.edges {
            if let (Some(&from), Some(&to)) = (nodes.get(edge.from), nodes.get(edge.to)) {
                graph.add_edge(from, to, edge.input);
            }
        }
        Self { order: order(&graph), graph }
    }
}

/// The stage an input names, if it makes what the input needs. Of the branches of a swept stage it is the one whose
/// values all reach the reader too.
fn resolve(
    graph: &DiGraph<Node, String>,
    stages: &[StageEntry],
    reader: &StageEntry,
    input: &Input<'_>,
) -> Result<NodeIndex, ConfigErrorKind> {
    let (stage, parameter, found) = (reader.id.to_string(), input.name.clone(), input.stage.to_string());
    let others = |fits: &dyn Fn(&Node) -> bool| {
        let mut ids: Vec<String> = Vec::new();
        for node in graph.node_weights().filter(|node| *node.origin() != reader.origin && fits(node)) {
            if !ids.iter().any(|id| id == node.origin().as_str()) {
                ids.push(node.origin().to_string());
            }
        }
        ids
    };
    let is_named = |other: &StageEntry| {
        other.origin == *input.stage
            && other.branch.iter().all(|(axis, value)| reader.branch.get(axis) == Some(value))
    };
    let Some(from) = stages.iter().position(is_named).map(NodeIndex::new) else {
        return Err(ConfigErrorKind::UnknownId { stage, parameter, found, known: others(&|_| true) });
    };
    let node = &graph[from];
    if !input.kinds.contains(&node.output) {
        let fitting = others(&|node| input.kinds.contains(&node.output));
        let (name, made, needed) = (node.stage.clone(), node.output, input.kinds);
        return Err(ConfigErrorKind::WrongKind { stage, parameter, needed, found, name, made, fitting });
    }
    Ok(from)
}

/// Kahn's algorithm, taking the first stage of the file that is ready; stages on a cycle are left out.
fn order(graph: &DiGraph<Node, String>) -> Vec<usize> {
    let mut waits: Vec<_> =
        graph.node_indices().map(|node| graph.edges_directed(node, Direction::Incoming).count()).collect();
    let mut ready: BinaryHeap<_> = (0..waits.len()).filter(|&node| waits[node] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for edge in graph.edges(NodeIndex::new(node)) {
            let reader = edge.target().index();
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    order
}

/// A cycle as text, and the reference that closes it: a stage and its parameter.
fn cycle(graph: &DiGraph<Node, String>) -> (ConfigErrorKind, usize, String) {
    let on_itself = |nodes: &Vec<NodeIndex>| nodes.len() > 1 || graph.contains_edge(nodes[0], nodes[0]);
    let circle = tarjan_scc(graph).into_iter().find(on_itself).expect("a graph without an order has a cycle");
    let start = *circle.iter().min().expect("a component is not empty");
    // Inside a strongly connected component every stage reads another of it: going on must return.
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
    (ConfigErrorKind::Cycle { path: ids.join(" reads ") }, closing.target().index(), closing.weight().clone())
}

#[cfg(test)]
mod tests {
    use miette::Diagnostic;

    use super::*;
    use crate::config::testing::parse;

    const HEAD: &str = "format: 1\nname: t\nstages:\n";

    fn graph(stages: &str) -> Result<Graph, ConfigError> {
        Graph::new(&parse(&format!("{HEAD}{stages}")).expect("the pipeline can be read"))
    }

    #[test]
    fn runs_in_file_order_where_references_allow() {
        let graph = graph(
            "- { id: b, use: select, with: { model: m, after: a } }\n\
             - { id: m, use: load, with: { model: x } }\n\
             - { id: a, use: select, with: { model: m } }\n\
             - { id: e, use: evaluate, with: { models: { one: m, two: m } } }\n",
        )
        .expect("the references are right");
        assert_eq!(graph.order(), [1, 2, 0, 3]);
        assert_eq!(graph.inputs(0), [("model", 1), ("after", 2)]);
        assert_eq!(graph.inputs(3), [("models.one", 1), ("models.two", 1)]);
        assert_eq!(graph.with_ancestors(2), BTreeSet::from([1, 2]));
        assert_eq!(graph.with_descendants(2), BTreeSet::from([0, 2]));

        let text = serde_json::to_string(&graph).expect("a graph is plain data");
        let again: Graph = serde_json::from_str(&text).expect("and comes back");
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
        let swept = swept.expect("the references are right");
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
