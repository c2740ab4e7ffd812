//! The references between stages, and an order in which to run them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef, Reversed};
use serde::{Deserialize, Serialize};

use crate::base::{ArtefactKind, StageId};

/// The stages of a pipeline, by their index in the file, and their references.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "StoredGraph", from = "StoredGraph")]
pub struct Graph {
    pub(super) graph: DiGraph<Node, String>,
    order: Vec<usize>,
}

/// A stage as a node of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its `id:`.
    pub id: StageId,
    /// Its `use:`.
    pub stage: String,
    /// The kind of artefact that it produces.
    pub output: ArtefactKind,
    /// For a branch of a sweep: the `id:` in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<StageId>,
}

impl Node {
    /// The `id:` in the file.
    pub fn origin(&self) -> &StageId {
        self.origin.as_ref().unwrap_or(&self.id)
    }
}

/// A reference from one stage to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Index of the stage whose artefact is read.
    pub from: usize,
    /// Index of the stage that reads it.
    pub to: usize,
    /// The parameter that contains it: `scores`, or `models.pruned`.
    pub input: String,
}

/// The stored form: a run's record contains the graph, so that a report needs no pipeline file.
#[derive(Clone, Serialize, Deserialize)]
struct StoredGraph {
    stages: Vec<Node>,
    edges: Vec<Edge>,
}

impl Graph {
    /// The graph of stages and references, which may form cycles; in that case [`Graph::order`] omits some stages.
    pub(super) fn new(stages: impl IntoIterator<Item = Node>, edges: impl IntoIterator<Item = Edge>) -> Self {
        let mut graph = DiGraph::new();
        let nodes: Vec<_> = stages.into_iter().map(|stage| graph.add_node(stage)).collect();
        for edge in edges {
            if let (Some(&from), Some(&to)) = (nodes.get(edge.from), nodes.get(edge.to)) {
                graph.add_edge(from, to, edge.input);
            }
        }
        Self { order: order(&graph), graph }
    }

    /// Indices of all stages, each after its inputs; otherwise in the file's order.
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

    /// All references, ordered by reader, then in the order of the reader's parameters.
    pub fn edges(&self) -> Vec<Edge> {
        let edge = |edge: petgraph::graph::EdgeReference<'_, String>| Edge {
            from: edge.source().index(),
            to: edge.target().index(),
            input: edge.weight().clone(),
        };
        self.graph.edge_references().map(edge).collect()
    }

    /// The inputs of a stage: the parameter's name and the index of the stage that it refers to.
    pub fn inputs(&self, index: usize) -> Vec<(&str, usize)> {
        let edges = self.graph.edges_directed(NodeIndex::new(index), Direction::Incoming);
        let mut inputs: Vec<_> =
            edges.map(|edge| (edge.id(), edge.weight().as_str(), edge.source().index())).collect();
        inputs.sort_unstable();
        inputs.into_iter().map(|(_, name, from)| (name, from)).collect()
    }

    /// The stages that a stage reads, each once.
    pub fn sources(&self, index: usize) -> BTreeSet<usize> {
        self.neighbours(index, Direction::Incoming)
    }

    /// The stages that read a stage, each once.
    pub fn readers(&self, index: usize) -> BTreeSet<usize> {
        self.neighbours(index, Direction::Outgoing)
    }

    fn neighbours(&self, index: usize, direction: Direction) -> BTreeSet<usize> {
        self.graph.neighbors_directed(NodeIndex::new(index), direction).map(NodeIndex::index).collect()
    }

    /// The graph with all branches of a stage as one node: `selection × 24`.
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
        Self::new(stages.into_iter().map(name), edges)
    }

    /// A stage and every stage it depends on: what `--until` runs.
    pub fn with_ancestors(&self, index: usize) -> BTreeSet<usize> {
        let graph = Reversed(&self.graph);
        let mut search = Dfs::new(graph, NodeIndex::new(index));
        std::iter::from_fn(|| search.next(graph)).map(NodeIndex::index).collect()
    }

    /// A stage and every stage that depends on it: what a failure affects.
    pub fn with_descendants(&self, index: usize) -> BTreeSet<usize> {
        let mut search = Dfs::new(&self.graph, NodeIndex::new(index));
        std::iter::from_fn(|| search.next(&self.graph)).map(NodeIndex::index).collect()
    }
}

impl From<Graph> for StoredGraph {
    fn from(graph: Graph) -> Self {
        Self { edges: graph.edges(), stages: graph.graph.node_weights().cloned().collect() }
    }
}

impl From<StoredGraph> for Graph {
    fn from(stored: StoredGraph) -> Self {
        Self::new(stored.stages, stored.edges)
    }
}

/// Kahn's algorithm, taking the first ready stage in the file's order; stages on a cycle are left out.
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
