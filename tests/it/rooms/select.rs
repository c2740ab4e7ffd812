//! Selection against brute force, against its own certificate, and at SDXL's size.

use std::collections::{BTreeMap, BTreeSet};

use crate::small_unets::{configs, published};
use laptop_diff::backend::Random;
use laptop_diff::model::UNetConfig;
use laptop_diff::model::network::UnitKind;
use laptop_diff::profile::Latency;
use laptop_diff::score::{Additivity, Gram, MeasuredSet, Scores, UnitScores};
use laptop_diff::select::{
    Budget, Budgets, Front, MemoryBudget, Method, OBJECTIVES, ObjectiveInfo, Rules, SOLVERS, SelectError,
    Selection, SelectionProblem, SelectionRequest, Tree, count_maps, solver,
};
use proptest::prelude::*;
use rand::RngExt;

/// Problems of up to nine units in a forest up to three deep, with a few equal weights as in real U-Nets. Some have losses
/// below zero, a Gram matrix, a second budget or rules.
fn problems() -> impl Strategy<Value = SelectionProblem> {
    let units =
        prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, -2.0..10.0f64, 1..6u64, 0..4u64), 1..10);
    let effects = prop::collection::vec(-1.0..1.0f64, 9 * 4);
    let rules = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..3);
    (units, effects, any::<bool>(), 0.0..1.0f64, prop::option::of(0.0..1.0f64), rules).prop_map(
        |(units, effects, has_gram, first, second, rules)| {
            let mut parents: Vec<Option<usize>> = Vec::new();
            for (place, (index, root, ..)) in units.iter().enumerate() {
                let parent = (place > 0 && *root > 0).then(|| index.index(place));
                let depth = |unit| std::iter::successors(Some(unit), |&unit: &usize| parents[unit]).count();
                let parent = parent.filter(|&parent| depth(parent) < 3);
                parents.push(parent);
            }
            let tree = Tree::new(parents);
            let n = units.len();
            // The weight of a unit is that of its parts and a shell.
            let weights = |seed: fn(u64, u64) -> u64| {
                let mut weights = vec![0; n];
                for unit in (0..n).rev() {
                    let parts: u64 = tree.parts(unit).iter().map(|&part| weights[part]).sum();
                    let (_, _, _, leaf, shell) = units[unit];
                    weights[unit] = if parts == 0 { seed(leaf, shell) } else { parts + shell };
                }
                weights
            };
            let total = |weights: &[u64]| tree.roots().map(|root| weights[root]).sum::<u64>() + 3;
            let one = weights(|leaf, _| leaf);
            let two = weights(|leaf, shell| 1 + shell * leaf % 5);
            let share = |quantity, weights: Vec<u64>, ratio| {
                let total = total(&weights);
                Budget::share(quantity, weights, total, ratio)
            };
            let mut budgets = vec![share("parameters", one, first)];
            budgets.extend(second.map(|ratio| share("MACs", two, ratio)));
            let effect = |unit: usize| &effects[4 * unit..][..4];
            let product =
                |a: usize, b: usize| effect(a).iter().zip(effect(b)).map(|(a, b)| a * b).sum::<f64>();
            let gram = (0..n * n).map(|at| product(at / n, at % n)).collect();
            let rules = rules.iter().map(|(index, goes)| (index.index(n), *goes));
            let rules = without_contradictions(&tree, rules);
            SelectionProblem {
                units: (0..n).map(|unit| unit.to_string().into()).collect(),
                losses: units.iter().map(|unit| if has_gram { 0.1 * unit.2 } else { unit.2 }).collect(),
                gram: if has_gram { gram } else { Vec::new() },
                budgets,
                rules,
                tree,
            }
        },
    )
}

/// The rules in order, except those that contradict earlier ones.
fn without_contradictions(tree: &Tree, rules: impl Iterator<Item = (usize, bool)>) -> Rules {
    let mut settled = Rules::none(tree.len());
    for (unit, goes) in rules {
        // After a contradiction the rules are incomplete, so they are set on a copy.
        let mut more = settled.clone();
        // Everything inside a kept unit is kept too.
        let inside = tree.inside(unit).filter(|_| !goes);
        if std::iter::once(unit).chain(inside).all(|one| more.set(tree, one, goes).is_ok()) {
            settled = more;
        }
    }
    settled
}

/// A feasible selection: none inside another, never all parts of one, nothing against the rules.
fn is_feasible(problem: &SelectionProblem, named: &[bool]) -> bool {
    let mut settled = named.to_vec();
    problem.tree.settle(&mut settled);
    settled == named && problem.rules.allow(&problem.tree, named)
}

/// Every feasible selection.
fn selections(problem: &SelectionProblem) -> impl Iterator<Item = Vec<bool>> {
    let n = problem.units.len();
    let all = (0..1u32 << n).map(move |set| (0..n).map(|unit| set >> unit & 1 == 1).collect::<Vec<_>>());
    all.filter(|named| is_feasible(problem, named))
}

/// The least objective of the selections that meet the budgets, by trying all of them.
fn by_brute_force(problem: &SelectionProblem) -> f64 {
    let reaching = selections(problem).filter(|named| problem.reaches(named));
    reaching.map(|named| problem.value(&named)).fold(f64::INFINITY, f64::min)
}

proptest! {
    // A failing case prints its input; add it as a test of its own instead of a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_front_is_the_optimum_at_every_weight(mut problem in problems()) {
        problem.gram.clear();
        problem.budgets.truncate(1);
        let front = Front::of(&problem);
        let points: Vec<_> = front.points().collect();
        prop_assert!(points.windows(2).all(|pair| pair[0].0 > pair[1].0 && pair[0].1 > pair[1].1));
        let available = problem.budgets[0].saved(&problem.most());
        prop_assert_eq!(front.heaviest(), available);
        for needed in 0..=available {
            problem.budgets[0].needed = needed;
            let place = front.cheapest(needed).expect("reachable");
            let best = by_brute_force(&problem);
            // Sums of ten numbers below 20 in another order: a few units in the last place.
            prop_assert!((points[place].1 - best).abs() < 1e-12, "{} against {best}", points[place].1);
            let named = problem.named(&front.removed(place));
            prop_assert!(is_feasible(&problem, &named));
            prop_assert_eq!(problem.budgets[0].saved(&named), points[place].0);
            prop_assert!((problem.value(&named) - best).abs() < 1e-12);
        }
        prop_assert_eq!(front.cheapest(available + 1), None);
    }

    #[test]
    fn every_solver_reaches_the_budgets_and_the_knapsack_is_the_optimum(problem in problems()) {
        if problem.check().is_err() {
            prop_assert_eq!(by_brute_force(&problem), f64::INFINITY);
            return Ok(());
        }
        let best = by_brute_force(&problem);
        for solver in SOLVERS {
            let solved = solver.solve(&problem, &Random::new(1, "selection"));
            let value = problem.value(&solved.named);
            prop_assert!(is_feasible(&problem, &solved.named), "{}", solver.name());
            prop_assert!(problem.reaches(&solved.named), "{}", solver.name());
            prop_assert!(value >= best - 1e-9, "{} claims {value}, the optimum is {best}", solver.name());
            if let Some(bound) = solved.bound {
                prop_assert!(bound <= best + 1e-9 * (1.0 + best.abs()), "{bound} is no bound of {best}");
                prop_assert!((value - best).abs() <= 1e-6 * (1.0 + best.abs()), "{value} is not {best}");
                prop_assert!(value - bound <= 1e-6 * (1.0 + value.abs()), "{bound} does not prove {value}");
            }
        }
    }

    #[test]
    fn all_that_may_go_is_the_most_that_can(problem in problems()) {
        for (place, budget) in problem.budgets.iter().enumerate() {
            let most = selections(&problem).map(|named| problem.budgets[place].saved(&named)).max();
            prop_assert_eq!(most, Some(budget.saved(&problem.most())));
        }
    }
}

/// SDXL's 17 ResNets, 11 Transformer2D and 70 blocks, with random losses that grow with the branch.
fn sdxl(seed: u64) -> Scores {
    let config = published("sdxl-base");
    let inventory = config.inventory();
    let mut stream = Random::new(seed, "sdxl").stream("losses", 0);
    let mut loss =
        |parameters: u64| (parameters as f64 / 1e7).sqrt() * stream.random_range(-4.0..2.0f64).exp();
    let units = inventory.units().iter().map(|unit| UnitScores {
        id: unit.id.clone(),
        kind: unit.kind,
        parameters: unit.parameters,
        macs: unit.macs,
        parent: unit.parent.clone(),
        scores: ["output-loss", "magnitude"].map(|name| (name.to_owned(), loss(unit.parameters))).into(),
    });
    Scores {
        format: 1,
        criteria: vec!["output-loss".into(), "magnitude".into()],
        points: 1,
        unet_parameters: inventory.parameters(),
        units: units.collect(),
        unet: config.to_json(),
        ..Scores::default()
    }
}

/// The Lagrangian with one price per parameter: a bound on the loss of every selection that reaches `needed`.
fn priced(problem: &SelectionProblem, price: f64, needed: u64) -> f64 {
    let cost = |unit: usize| problem.losses[unit] - price * problem.budgets[0].weights[unit] as f64;
    let treated = |root: usize| {
        let parts: Vec<_> = problem.tree.parts(root).iter().map(|&part| cost(part)).collect();
        let some: f64 = parts.iter().filter(|cost| **cost < 0.0).sum();
        // If all would go, the one that it costs least to leave stays.
        let all = !parts.is_empty() && parts.iter().all(|cost| *cost < 0.0);
        let left = if all { parts.iter().copied().fold(f64::NEG_INFINITY, f64::max) } else { 0.0 };
        cost(root).min(some - left)
    };
    price * needed as f64 + problem.tree.roots().map(treated).sum::<f64>()
}

#[test]
fn all_ratios_of_sdxl_are_solved_exactly() -> miette::Result<()> {
    for seed in 0..3 {
        let scores = sdxl(seed);
        assert_eq!(scores.units.len(), 17 + 11 + 70);
        let problem =
            SelectionRequest::new("output-loss", Method::Solver(SOLVERS[0]), Some(0.5)).problem(&scores)?;
        let points: Vec<_> = Front::of(&problem).points().collect();
        // The certificate: at each corner of the lower convex hull the price of its slope proves the loss.
        let mut corners: Vec<(u64, f64)> = Vec::new();
        let rise = |from: (u64, f64), to: (u64, f64)| (to.1 - from.1) / (to.0 - from.0) as f64;
        for &point in points.iter().rev() {
            while let [.., before, last] = corners[..]
                && rise(before, last) >= rise(last, point)
            {
                corners.pop();
            }
            corners.push(point);
        }
        assert!(corners.len() > 20, "only {} corners", corners.len());
        for pair in corners.windows(2) {
            let price = rise(pair[0], pair[1]);
            for (weight, loss) in pair {
                let bound = priced(&problem, price, *weight);
                assert!((bound - loss).abs() <= 1e-9 * loss.abs().max(1.0), "{bound} is not {loss}");
            }
            assert!(
                points.iter().all(|(weight, loss)| priced(&problem, price, *weight) <= loss * (1.0 + 1e-9))
            );
        }
    }
    Ok(())
}

/// The scores of SDXL with orthogonal effects of one size, and measured sets whose joint loss is twice the sum.
fn with_identity_as_gram() -> Scores {
    let mut scores = sdxl(7);
    let count = scores.units.len();
    let identity = (0..count * count).map(|place| f64::from(u8::from(place % (count + 1) == 0))).collect();
    scores.gram = Some(Gram::new(scores.units.iter().map(|unit| unit.id.clone()).collect(), identity));
    let set = |scale: f64| MeasuredSet {
        removed: vec![format!("{scale}").into()],
        ratio: 0.5,
        joint: 2.0 * scale,
        predicted: BTreeMap::from([("output-loss".to_owned(), scale), ("gram".to_owned(), scale.sqrt())]),
    };
    scores.additivity = Some(Additivity::of([1.0, 3.0, 10.0, 20.0, 30.0, 50.0].map(set).into()));
    scores
}

#[test]
fn a_selection_records_what_it_reaches_and_reads_back() -> miette::Result<()> {
    let mut scores = with_identity_as_gram();
    let request = SelectionRequest::new("output-loss", Method::Solver(SOLVERS[0]), Some(0.5));
    let selection = Selection::make(&scores, &request, &Random::new(1, "selection"))?;
    assert!(selection.ratio_reached >= 0.5 && selection.ratio_reached < 0.51);
    assert_eq!(selection.removed_parameters, scores.parameters(&selection.removed()));
    assert_eq!(
        (selection.predicted.bound, selection.predicted.gap),
        (selection.predicted.objective, Some(0.0))
    );
    assert_eq!(selection.predicted.gram, Some(selection.removed.len() as f64));
    assert_eq!(selection.baselines.len(), 22);
    for baseline in &selection.baselines {
        assert!(baseline.removed_parameters * 2 >= scores.unet_parameters, "{}", baseline.name);
    }
    // The measured sets predict twice the sum, without scatter.
    let joint = selection.predicted.joint["output-loss"];
    assert!((joint.loss / (2.0 * selection.predicted.objective) - 1.0).abs() < 1e-9, "{joint:?}");
    assert!(
        selection.predicted.joint.contains_key("gram") && joint.low <= joint.loss && joint.loss <= joint.high
    );
    assert!(
        selection.front.windows(2).all(|pair| pair[0].ratio < pair[1].ratio && pair[0].loss < pair[1].loss)
    );
    assert!(selection.front.last().is_some_and(|point| (point.ratio - 0.983).abs() < 1e-3));
    let folder = tempfile::tempdir().expect("a folder");
    selection.save(folder.path()).expect("written");
    let read = Selection::open(folder.path()).expect("read");
    assert_eq!((&read.removed, &read.baselines), (&selection.removed, &selection.baselines));
    // serde_json reads decimals with an error of up to one unit in the last place.
    assert!((read.predicted.objective / selection.predicted.objective - 1.0).abs() <= f64::EPSILON);

    // With orthogonal effects of one size, `gram` removes the fewest units, whatever their scores, and proves the number.
    let request = SelectionRequest { objective: ObjectiveInfo::find("gram")?, ..request };
    let few = Selection::make(&scores, &request, &Random::new(1, "selection"))?;
    assert!(
        few.removed.len() <= selection.removed.len() && few.predicted.gap.is_some_and(|gap| gap < 0.01),
        "{:?}",
        few.predicted
    );
    assert_eq!(few.baselines[1].name, "additive-knapsack");
    assert_eq!(few.baselines[1].removed, selection.removed);
    // The ratio asked for is recorded unrounded, and output losses are known from the matrix.
    for unit in &mut scores.units {
        unit.scores.remove("output-loss");
    }
    let mixed = SelectionRequest { budgets: Budgets { parameters: Some(0.7), ..request.budgets }, ..request };
    let mixed = Selection::make(&scores, &mixed, &Random::new(1, "selection"))?;
    assert_eq!((mixed.budgets[0].asked, mixed.predicted.additive), (0.7, Some(mixed.removed.len() as f64)));
    Ok(())
}

/// All four budgets are met, with a bound below the objective.
fn check_budgets(selection: &Selection) {
    assert_eq!(selection.budgets.len(), 4);
    let budgets = &selection.budgets;
    assert!(budgets.iter().all(|budget| budget.reached >= budget.asked), "{budgets:?}");
    assert!((selection.unet_parameters - selection.removed_parameters) * 2 <= 3_000_000_000);
    let predicted = &selection.predicted;
    assert!(predicted.gap.is_some_and(|gap| gap >= 0.0) && predicted.bound <= predicted.objective);
}

#[test]
fn several_budgets_and_patterns_hold_at_once() -> miette::Result<()> {
    let scores = sdxl(3);
    let config = published("sdxl-base");
    let inventory = config.inventory();
    // Latencies as if a MAC took a picosecond.
    let seconds = |macs: u64| macs as f64 * 1e-12;
    let (height, width) = config.sample_size;
    let times = inventory.units().iter().map(|unit| (unit.id.clone(), seconds(unit.macs))).collect();
    let latency = Latency::new(1, config.sample_size, seconds(inventory.macs(height, width)), times);
    let keep = ["mid_block.*".to_owned(), "*.attentions.1.transformer_blocks.0".to_owned()];
    let remove = ["up_blocks.2.resnets.1".to_owned()];
    let request = SelectionRequest {
        budgets: Budgets {
            parameters: Some(0.3),
            macs: Some(0.3),
            latency: Some((0.35, &latency)),
            memory: Some(MemoryBudget::Bytes(3_000_000_000)),
        },
        keep: &keep,
        remove: &remove,
        ..SelectionRequest::new("output-loss", Method::Solver(SOLVERS[0]), None)
    };
    for solver in SOLVERS {
        let request = SelectionRequest { method: Method::Solver(*solver), ..request };
        let selection = Selection::make(&scores, &request, &Random::new(1, "selection"))?;
        check_budgets(&selection);
        let removed = |word: &str| selection.removed.iter().any(|unit| unit.as_str().contains(word));
        assert!(
            !removed("mid_block") && !removed("attentions.1.transformer_blocks.0"),
            "{:?}",
            selection.removed
        );
        assert!(removed("up_blocks.2.resnets.1"), "{:?}", selection.removed);
        if solver.name() == "knapsack" {
            assert!(selection.predicted.gap.is_some_and(|gap| gap < 0.01), "{:?}", selection.predicted);
        }
    }
    let refuse = |keep: &[String], remove: &[String]| {
        Selection::make(&scores, &SelectionRequest { keep, remove, ..request }, &Random::new(1, "selection"))
            .map(drop)
    };
    let error = refuse(&["mid_blok.*".to_owned()], &[]).expect_err("no such unit");
    let help = miette::Diagnostic::help(&error).map(|help| help.to_string()).unwrap_or_default();
    assert!(error.to_string().contains("`mid_blok.*` of `keep` matches no unit"), "{error}");
    assert!(help.contains("`mid_block."), "{help}");
    assert!(matches!(
        refuse(&keep, &["mid_block.resnets.0".to_owned()]),
        Err(SelectError::Contradiction { unit }) if unit.as_str() == "mid_block.resnets.0"
    ));
    Ok(())
}

#[test]
fn impossible_requests_are_errors_that_say_what_is_possible() {
    let scores = sdxl(0);
    let random = Random::new(1, "selection");
    let make = |criterion, ratio| {
        Selection::make(
            &scores,
            &SelectionRequest::new(criterion, Method::Solver(SOLVERS[0]), Some(ratio)),
            &random,
        )
    };
    // 44 M are in no unit: convolutions in and out, embeddings, samplers, shortcuts.
    match make("output-loss", 0.99) {
        Err(SelectError::RatioUnreachable { ratio, reachable, .. }) => {
            assert!(reachable == 0.982 && ratio == 0.99, "{reachable} {ratio}");
            assert!(make("output-loss", reachable).is_ok());
        }
        other => panic!("{:?}", other.map(|selection| selection.ratio_reached)),
    }
    // Without units, a budget of zero is met already.
    let memory = Some(MemoryBudget::Bytes(u64::MAX));
    let request = SelectionRequest {
        budgets: Budgets { memory, ..Budgets::default() },
        ..SelectionRequest::new("output-loss", Method::Solver(SOLVERS[0]), None)
    };
    let none = Selection::make(&Scores { unet_parameters: 1, ..Scores::default() }, &request, &random);
    assert!(none.is_ok_and(|selection| selection.removed.is_empty()));
    assert!(matches!(make("taylor", 0.5), Err(SelectError::UnknownCriterion { .. })));
    assert!(solver("simplex").is_err());
    assert!(ObjectiveInfo::find("sum").is_err());
    let request = SelectionRequest::new("output-loss", Method::Solver(SOLVERS[0]), Some(0.5));
    let gram = SelectionRequest { objective: &OBJECTIVES[1], ..request };
    assert!(matches!(gram.problem(&scores), Err(SelectError::NoGram)));
    let mut broken = scores.clone();
    broken.units[3].scores.insert("output-loss".into(), f64::NAN);
    assert!(matches!(request.problem(&broken), Err(SelectError::NotFinite { .. })));
    let mut orphan = scores.clone();
    orphan.units.retain(|unit| unit.kind != UnitKind::Transformer);
    assert!(matches!(request.problem(&orphan), Err(SelectError::Orphan { .. })));
}

#[test]
fn linear_maps_count_against_the_budget() -> miette::Result<()> {
    // The last one has lost units before.
    for (name, config) in configs().into_iter().take(3) {
        let unet = UNetConfig::parse(&config.to_string())?;
        let mut scores = Scores {
            unet: unet.to_json(),
            unet_parameters: unet.inventory().parameters(),
            criteria: vec!["magnitude".to_owned()],
            ..Scores::default()
        };
        for (unit, at) in unet.inventory().units().iter().zip(1..) {
            scores.units.push(UnitScores {
                id: unit.id.clone(),
                kind: unit.kind,
                parameters: unit.parameters,
                macs: unit.macs,
                parent: unit.parent.clone(),
                scores: BTreeMap::from([("magnitude".to_owned(), f64::from(at))]),
            });
        }
        let method = Method::Solver(solver("knapsack").expect("a solver"));
        let request = SelectionRequest::new("magnitude", method, Some(0.5));
        let make = |scores: &Scores| Selection::make(scores, &request, &Random::new(1, "select"));
        // A model with a map in place of every removed unit, whether or not a neighbour could share it.
        let kept = |selection: &Selection| -> miette::Result<f64> {
            let pruned = unet.prune(&selection.removed())?;
            let places = pruned
                .removed_units
                .iter()
                .filter(|&unit| pruned.with_maps(&BTreeSet::from([unit.clone()])).is_ok());
            let mapped = pruned.with_maps(&places.cloned().collect()).expect("each has a place");
            Ok(mapped.inventory().parameters() as f64 / scores.unet_parameters as f64)
        };
        let plain = make(&scores)?;
        let mut counted = scores.clone();
        count_maps(&mut counted)?;
        let selection = make(&counted)?;
        assert!(kept(&selection)? <= 0.5, "{name}: {}", kept(&selection)?);
        assert!((kept(&selection)? + selection.ratio_reached - 1.0).abs() < 1e-9, "{name}");
        // The same units save less than they hold, and what is counted is never less than what is asked for.
        let removed = selection.removed();
        assert!(counted.parameters(&removed) < scores.parameters(&removed), "{name}");
        assert!(
            scores.parameters(&removed) >= plain.removed_parameters.min(scores.unet_parameters / 2),
            "{name}"
        );
    }
    Ok(())
}
