//! Selection against brute force, against its own certificate, and at SDXL's size.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use laptop_diff::backend::Random;
use laptop_diff::base::UnitId;
use laptop_diff::model::unet::UnitKind;
use laptop_diff::score::{Gram, Scores, UnitScores};
use laptop_diff::select::bound::lower_bound;
use laptop_diff::select::{Front, Group, Item, Method, Plan, Problem, Request, SOLVERS, SelectError, solver};
use proptest::prelude::*;
use rand::RngExt;

fn item(unit: String, loss: f64, weight: u64) -> Item {
    Item { unit: unit.into(), loss, weight }
}

/// Problems of up to ten items, of a few equal weights as in real U-Nets, some losses below zero.
fn problems() -> impl Strategy<Value = Problem> {
    let items = prop::collection::vec((-2.0..10.0f64, 1..6u64), 1..4);
    let whole = prop::option::of((-2.0..20.0f64, 0..4u64));
    prop::collection::vec((items, whole), 1..4).prop_map(|groups| {
        let groups = groups.into_iter().enumerate().map(|(place, (items, whole))| {
            let all: u64 = items.iter().map(|(_, weight)| weight).sum();
            let items: Vec<_> = items
                .into_iter()
                .enumerate()
                .map(|(number, (loss, weight))| item(format!("{place}.{number}"), loss, weight))
                .collect();
            let whole = whole.filter(|_| items.len() > 1);
            let whole = whole.map(|(loss, shell)| item(place.to_string(), loss, all + shell));
            Group { items, whole }
        });
        let groups: Vec<_> = groups.collect();
        let total = groups.iter().map(Group::available).sum::<u64>() + 3;
        Problem { groups, total }
    })
}

/// The least loss that reaches `needed`, by trying everything.
fn by_brute_force(groups: &[Group], needed: u64) -> f64 {
    let Some((group, rest)) = groups.split_first() else {
        return if needed == 0 { 0.0 } else { f64::INFINITY };
    };
    let all = (1u32 << group.items.len()) - 1;
    let mut least = f64::INFINITY;
    for set in 0..=all {
        let (loss, weight) = match &group.whole {
            Some(whole) if set == all => (whole.loss, whole.weight),
            _ => {
                let taken = group.items.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1);
                taken.fold((0.0, 0), |(loss, weight), (_, item)| (loss + item.loss, weight + item.weight))
            }
        };
        least = least.min(loss + by_brute_force(rest, needed.saturating_sub(weight)));
    }
    least
}

/// The groups' rule: no unit beside the whole that holds it, and never all items of a group that has a whole.
fn is_lawful(problem: &Problem, removed: &BTreeSet<UnitId>) -> bool {
    problem.groups.iter().all(|group| {
        let gone = group.items.iter().filter(|item| removed.contains(&item.unit)).count();
        match &group.whole {
            Some(whole) if removed.contains(&whole.unit) => gone == 0,
            Some(_) => gone < group.items.len(),
            None => true,
        }
    })
}

proptest! {
    // A failing case prints its input; it belongs into a test of its own, not into a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_front_is_the_optimum_at_every_weight(problem in problems()) {
        let front = Front::of(&problem);
        let points: Vec<_> = front.points().collect();
        prop_assert!(points.windows(2).all(|pair| pair[0].0 > pair[1].0 && pair[0].1 > pair[1].1));
        let available: u64 = problem.groups.iter().map(Group::available).sum();
        for needed in 0..=available {
            let place = front.cheapest(needed).expect("reachable");
            let best = by_brute_force(&problem.groups, needed);
            // Sums of ten numbers below 20 in another order: a few units in the last place.
            prop_assert!((points[place].1 - best).abs() < 1e-12, "{} against {best}", points[place].1);
            let removed = front.removed(place);
            let (loss, weight) = problem.cost(&removed);
            prop_assert!(is_lawful(&problem, &removed));
            prop_assert_eq!(weight, points[place].0);
            prop_assert!((loss - best).abs() < 1e-12);
            prop_assert!(lower_bound(&problem, needed) <= best + 1e-12);
        }
        prop_assert_eq!(front.cheapest(available + 1), None);
    }

    #[test]
    fn every_solver_reaches_the_ratio_and_none_beats_the_front(problem in problems(), ratio in 0.01..1.0f64) {
        let Ok(needed) = problem.needed(ratio) else { return Ok(()) };
        let front = Front::of(&problem);
        let best = front.points().nth(front.cheapest(needed).expect("reachable")).expect("a point").1;
        for solver in SOLVERS {
            let removed = solver.solve(&problem, needed, &Random::new(1, "selection"));
            let (loss, weight) = problem.cost(&removed);
            prop_assert!(is_lawful(&problem, &removed), "{}", solver.name());
            prop_assert!(weight >= needed, "{} reaches {weight} of {needed}", solver.name());
            prop_assert!(loss >= best - 1e-12, "{} claims {loss}, the optimum is {best}", solver.name());
        }
    }
}

fn unit(id: String, kind: UnitKind, parameters: u64, parent: Option<UnitId>) -> UnitScores {
    UnitScores { id: id.into(), kind, parameters, macs: 0, parent, scores: BTreeMap::new() }
}

/// SDXL's 17 ResNets, 11 Transformer2D and 70 blocks, with random losses that grow with the branch.
fn sdxl(seed: u64) -> Scores {
    let resnet = |input: u64, output: u64| {
        2 * input + 9 * input * output + output + 1281 * output + 2 * output + 9 * output * output + output
    };
    let mut units = Vec::new();
    let widths: [(u64, &[u64]); 7] = [
        (320, &[320, 320]),
        (640, &[320, 640]),
        (1280, &[640, 1280]),
        (1280, &[1280, 1280]),
        (1280, &[2560, 2560, 1920]),
        (640, &[1920, 1280, 960]),
        (320, &[960, 640, 640]),
    ];
    let depths: [(u64, &[usize]); 7] = [
        (0, &[]),
        (640, &[2, 2]),
        (1280, &[10, 10]),
        (1280, &[10]),
        (1280, &[10, 10, 10]),
        (640, &[2, 2, 2]),
        (0, &[]),
    ];
    for (level, ((output, inputs), (width, depths))) in widths.iter().zip(depths).enumerate() {
        for (place, &input) in inputs.iter().enumerate() {
            units.push(unit(
                format!("{level}.resnets.{place}"),
                UnitKind::Resnet,
                resnet(input, *output),
                None,
            ));
        }
        for (place, &depth) in depths.iter().enumerate() {
            let block = if width == 640 { 10_005_120 } else { 34_755_840 };
            let whole = format!("{level}.attentions.{place}");
            for number in 0..depth {
                let id = format!("{whole}.transformer_blocks.{number}");
                units.push(unit(id, UnitKind::Block, block, Some(whole.as_str().into())));
            }
            let shell = 2 * width * width + 4 * width;
            units.push(unit(whole, UnitKind::Transformer, depth as u64 * block + shell, None));
        }
    }
    let mut stream = Random::new(seed, "sdxl").stream("losses", 0);
    for unit in &mut units {
        let scale = (unit.parameters as f64 / 1e7).sqrt();
        for criterion in ["output-loss", "magnitude"] {
            unit.scores.insert(criterion.into(), scale * stream.random_range(-4.0..2.0f64).exp());
        }
    }
    Scores {
        format: 1,
        criteria: vec!["output-loss".into(), "magnitude".into()],
        points: 1,
        unet_parameters: 2_567_463_684,
        units,
        ..Scores::default()
    }
}

#[test]
fn all_ratios_of_sdxl_are_solved_exactly_and_quickly() -> miette::Result<()> {
    for seed in 0..3 {
        let scores = sdxl(seed);
        assert_eq!(scores.units.len(), 17 + 11 + 70);
        let problem = Problem::of_parameters(&scores, "output-loss")?;
        let start = Instant::now();
        let front = Front::of(&problem);
        let seconds = start.elapsed().as_secs_f64();
        let points: Vec<_> = front.points().collect();
        // Under 1 ms on an idle core; issue 5 asks for 50.
        assert!(seconds < 0.05, "{} points in {seconds} s", points.len());

        // The certificate: the bound lies below every point, and meets each corner of the lower convex hull.
        let mut corners: Vec<(u64, f64)> = Vec::new();
        for &(weight, loss) in points.iter().rev() {
            assert!(lower_bound(&problem, weight) <= loss * (1.0 + 1e-12));
            let rise = |from: (u64, f64), to: (u64, f64)| (to.1 - from.1) / (to.0 - from.0) as f64;
            while let [.., before, last] = corners[..]
                && rise(before, last) >= rise(last, (weight, loss))
            {
                corners.pop();
            }
            corners.push((weight, loss));
        }
        assert!(corners.len() > 20, "only {} corners", corners.len());
        for (weight, loss) in corners {
            let bound = lower_bound(&problem, weight);
            assert!((bound - loss).abs() <= 1e-9 * loss, "{bound} is not {loss}");
        }
    }
    Ok(())
}

#[test]
fn a_plan_says_what_it_reaches_and_survives_the_disk() -> miette::Result<()> {
    let mut scores = sdxl(7);
    let count = scores.units.len();
    let identity = (0..count * count).map(|place| f64::from(u8::from(place % (count + 1) == 0))).collect();
    scores.gram = Some(Gram::new(scores.units.iter().map(|unit| unit.id.clone()).collect(), identity));
    let request = Request { criterion: "output-loss", method: Method::Solver(SOLVERS[0], 0.5) };
    let plan = Plan::make(&scores, &request, &Random::new(1, "selection"))?;
    assert!(plan.ratio_reached >= 0.5 && plan.ratio_reached < 0.51);
    assert_eq!(plan.removed_parameters, scores.parameters(&plan.removed()));
    assert!(plan.predicted.bound <= plan.predicted.objective);
    assert_eq!(plan.predicted.gram, Some(plan.removed.len() as f64));
    assert_eq!(plan.baselines.len(), 22);
    for baseline in &plan.baselines {
        assert!(baseline.removed_parameters * 2 >= scores.unet_parameters, "{}", baseline.name);
    }
    assert!(plan.front.windows(2).all(|pair| pair[0].ratio < pair[1].ratio && pair[0].loss < pair[1].loss));
    assert!(plan.front.last().is_some_and(|point| (point.ratio - 0.983).abs() < 1e-3));
    let folder = tempfile::tempdir().expect("a folder");
    plan.save(folder.path()).expect("written");
    let read = Plan::open(folder.path()).expect("read");
    assert_eq!((&read.removed, &read.baselines), (&plan.removed, &plan.baselines));
    // serde_json reads decimals to within a unit in the last place.
    assert!((read.predicted.objective / plan.predicted.objective - 1.0).abs() <= f64::EPSILON);
    Ok(())
}

#[test]
fn what_cannot_be_is_an_error_that_says_what_can() {
    let scores = sdxl(0);
    let random = Random::new(1, "selection");
    let make = |criterion, ratio| {
        Plan::make(&scores, &Request { criterion, method: Method::Solver(SOLVERS[0], ratio) }, &random)
    };
    // What stays is 44 M: convolutions in and out, embeddings, samplers, shortcuts.
    match make("output-loss", 0.99) {
        Err(SelectError::RatioUnreachable { reachable, .. }) => {
            assert!(reachable == 0.982, "{reachable}");
            assert!(make("output-loss", reachable).is_ok());
        }
        other => panic!("{:?}", other.map(|plan| plan.ratio_reached)),
    }
    assert!(matches!(make("taylor", 0.5), Err(SelectError::UnknownCriterion { .. })));
    assert!(matches!(solver("simplex"), Err(SelectError::UnknownSolver { .. })));
    let mut broken = scores.clone();
    broken.units[3].scores.insert("output-loss".into(), f64::NAN);
    assert!(matches!(Problem::of_parameters(&broken, "output-loss"), Err(SelectError::NotFinite { .. })));
    let mut orphan = scores.clone();
    orphan.units.retain(|unit| unit.kind != UnitKind::Transformer);
    assert!(matches!(Problem::of_parameters(&orphan, "output-loss"), Err(SelectError::Orphan { .. })));
}
