//! Selection at SDXL's size: the time of the exact front, and the gap of the search over a Gram matrix.
//! `cargo bench --bench select`; `--gram FOLDER` adds the scores in a folder.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::path::Path;
use std::time::Instant;

use laptop_diff::backend::Random;
use laptop_diff::model::network::UnitKind;
use laptop_diff::model::unet::UNetConfig;
use laptop_diff::score::{Gram, Scores, UnitScores};
use laptop_diff::select::{Budgets, Front, Method, OBJECTIVES, SOLVERS, SelectionRequest};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

const RATIOS: [f64; 6] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    if let (Some("--gram"), Some(folder)) = (arguments.next().as_deref(), arguments.next()) {
        let scores = Scores::open(Path::new(&folder)).expect("scores");
        return gram(&folder, &scores);
    }
    let scores = sdxl(0, 3, 0.3);
    let problem = request("additive", 0.5).problem(&scores).expect("a problem");
    let begun = Instant::now();
    let points = Front::of(&problem).points().len();
    println!("additive: {points} ratios, exactly, in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    for (rank, shared) in [(3, 0.3), (6, 0.5), (10, 0.7)] {
        for seed in 0..2 {
            gram(&format!("rank {rank}, {shared} shared, seed {seed}"), &sdxl(seed, rank, shared));
        }
    }
}

fn request(objective: &str, ratio: f64) -> SelectionRequest<'static> {
    SelectionRequest {
        criterion: "output-loss",
        objective: OBJECTIVES.iter().find(|one| one.name == objective).expect("known"),
        method: Method::Solver(SOLVERS[0]),
        budgets: Budgets { parameters: Some(ratio), ..Budgets::default() },
        keep: &[],
        remove: &[],
    }
}

fn gram(name: &str, scores: &Scores) {
    for ratio in RATIOS {
        let problem = request("gram", ratio).problem(scores).expect("a problem");
        let begun = Instant::now();
        let solved = SOLVERS[0].solve(&problem, &Random::new(0, "bench"));
        let seconds = begun.elapsed().as_secs_f64();
        let (value, bound) = (problem.value(&solved.named), solved.bound.expect("a bound"));
        let gap = (value - bound) / value * 100.0;
        println!(
            "gram: {name}, ratio {ratio}: {value:.4e}, gap {gap:.3} % in {seconds:.2} s, {} nodes",
            solved.nodes
        );
    }
}

/// SDXL's units with losses over four decades and a Gram matrix of `rank` shared directions, which make up the share
/// `shared` of each unit's effect. A transformer's effect is the sum of those of its blocks and its shell.
fn sdxl(seed: u64, rank: usize, shared: f64) -> Scores {
    let text = std::fs::read_to_string("tests/golden/configs/sdxl-base.json").expect("SDXL's configuration");
    let config = UNetConfig::parse(&text).expect("a configuration");
    let inventory = config.inventory();
    let mut stream = Random::new(seed, "sdxl").stream("effects", 0);
    // The shared directions come first, then each unit's own.
    let n = inventory.units().len();
    let mut effects: Vec<Vec<f64>> = Vec::new();
    for (place, unit) in inventory.units().iter().enumerate() {
        let size = (unit.parameters as f64 / 1e7).powf(0.25) * stream.random_range(-5.0..4.0f64).exp().sqrt();
        let size = if unit.kind == UnitKind::Transformer { 0.3 * size } else { size };
        let mut effect: Vec<f64> = (0..rank).map(|_| StandardNormal.sample(&mut stream)).collect();
        let length = effect.iter().map(|one| one * one).sum::<f64>().sqrt();
        effect.iter_mut().for_each(|one| *one *= size * shared.sqrt() / length);
        effect.resize(rank + n, 0.0);
        effect[rank + place] = size * (1.0 - shared).sqrt();
        effects.push(effect);
    }
    for (place, unit) in inventory.units().iter().enumerate() {
        if let Some(parent) = &unit.parent {
            let whole = inventory.units().iter().position(|other| other.id == *parent).expect("a parent");
            let part = effects[place].clone();
            effects[whole].iter_mut().zip(part).for_each(|(whole, part)| *whole += part);
        }
    }
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let values: Vec<f64> = effects.iter().flat_map(|a| effects.iter().map(move |b| product(a, b))).collect();
    let unit = |(place, unit): (usize, &laptop_diff::model::network::Unit)| UnitScores {
        id: unit.id.clone(),
        kind: unit.kind,
        parameters: unit.parameters,
        macs: unit.macs,
        parent: unit.parent.clone(),
        scores: [("output-loss".to_owned(), values[place * n + place])].into(),
    };
    let units: Vec<_> = inventory.units().iter().enumerate().map(unit).collect();
    Scores {
        criteria: vec!["output-loss".to_owned()],
        unet_parameters: inventory.parameters(),
        unet: config.to_json(),
        gram: Some(Gram::new(units.iter().map(|unit| unit.id.clone()).collect(), values)),
        units,
        ..Scores::default()
    }
}
