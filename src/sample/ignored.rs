//! What a scheduler's config says beyond the noise schedule: settings of its sampler, which have no effect here,
//! because `drawing.sampler` chooses the sampler. They are said when a model is loaded.

use serde_json::{Value, json};

use super::class::{self, Class};

/// Settings of samplers, with the value that our sampler of the same name has.
fn settings() -> [(&'static str, Value); 16] {
    [
        ("algorithm_type", json!("dpmsolver++")),
        ("solver_order", json!(2)),
        ("solver_type", json!("midpoint")),
        ("lower_order_final", json!(true)),
        ("euler_at_final", json!(false)),
        ("use_lu_lambdas", json!(false)),
        ("use_karras_sigmas", json!(false)),
        ("use_exponential_sigmas", json!(false)),
        ("use_beta_sigmas", json!(false)),
        ("interpolation_type", json!("linear")),
        ("final_sigmas_type", json!("zero")),
        ("sigma_min", Value::Null),
        ("sigma_max", Value::Null),
        ("skip_prk_steps", json!(true)),
        ("thresholding", json!(false)),
        ("clip_sample", json!(false)),
    ]
}

/// Keys that only mean what [`settings`] says in the config of this class.
const OF_CLASS: &[(&str, &str)] = &[
    ("algorithm_type", "DPMSolverMultistepScheduler"),
    ("solver_order", "DPMSolverMultistepScheduler"),
    ("solver_type", "DPMSolverMultistepScheduler"),
    ("skip_prk_steps", "PNDMScheduler"),
];

/// One sentence for each thing that the config asks for and that is not done.
pub fn notes(config: &Value) -> Vec<String> {
    let name = config["_class_name"].as_str().unwrap_or_default();
    let mut notes = Vec::new();
    match class::of(name) {
        Class::FewSteps => notes.push(format!(
            "the model's scheduler is {name}, so it was probably distilled to a few steps of that sampler, which does \
             not exist here: `drawing.sampler` draws with DDPM's noise schedule, and needs as many steps as without \
             the distillation"
        )),
        Class::OtherSampler => notes.push(format!(
            "only the noise schedule is taken from the model's {name}: `drawing.sampler` chooses the sampler"
        )),
        Class::Sampled | Class::Refused(_) => {}
    }
    let differs = |key: &str, ours: &Value| {
        let theirs = &config[key];
        let of_another = OF_CLASS.iter().any(|(of, class)| *of == key && *class != name);
        !theirs.is_null() && theirs != ours && !of_another
    };
    let ignored: Vec<String> = settings()
        .into_iter()
        .filter(|(key, ours)| differs(key, ours))
        .map(|(key, _)| format!("`{key}: {}`", text(&config[key])))
        .collect();
    if !ignored.is_empty() {
        notes.push(format!(
            "{} of the model's scheduler_config.json {} no effect: `drawing.sampler` chooses the sampler",
            ignored.join(", "),
            if ignored.len() == 1 { "has" } else { "have" }
        ));
    }
    notes
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_diffusers_writes_by_default_is_not_noted() {
        for config in [
            json!({}),
            json!({ "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++",
                "solver_order": 2, "solver_type": "midpoint", "lambda_min_clipped": "-Infinity",
                "use_karras_sigmas": false, "variance_type": null, "thresholding": false }),
            json!({ "_class_name": "EulerDiscreteScheduler", "skip_prk_steps": false, "solver_order": 3,
                "sigma_min": null, "clip_sample": false }),
            json!({ "_class_name": "FlaxPNDMScheduler", "skip_prk_steps": true }),
        ] {
            assert_eq!(notes(&config), Vec::<String>::new(), "{config}");
        }
    }

    #[test]
    fn settings_without_effect_are_named_with_their_values() {
        let found = notes(&json!({
            "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3,
            "use_lu_lambdas": true, "use_karras_sigmas": true,
        }));
        let named = "`algorithm_type: sde-dpmsolver++`, `solver_order: 3`, `use_lu_lambdas: true`, \
                     `use_karras_sigmas: true` of the model's scheduler_config.json have no effect";
        assert!(found.len() == 1 && found[0].starts_with(named), "{found:?}");
        let lcm = notes(&json!({ "_class_name": "LCMScheduler" }));
        assert!(lcm.len() == 1 && lcm[0].contains("LCMScheduler"), "{lcm:?}");
        let unipc = notes(&json!({ "_class_name": "UniPCMultistepScheduler", "solver_type": "bh2" }));
        assert!(unipc.len() == 1 && unipc[0].contains("only the noise schedule"), "{unipc:?}");
    }
}
