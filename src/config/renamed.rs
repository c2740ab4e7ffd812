//! Keys that have another name or another place now. An old pipeline is refused with the new one in the message.

use super::error::ConfigErrorKind;

/// A key that is no longer known.
struct Renamed {
    /// The `use:` name, and behind a dot the block inside it.
    stage: &'static str,
    /// The key as it was.
    old: &'static str,
    /// The key as it is; dots lead into a block.
    new: &'static str,
}

const fn row(stage: &'static str, old: &'static str, new: &'static str) -> Renamed {
    Renamed { stage, old, new }
}

const RENAMED: &[Renamed] = &[
    row("prune", "plan", "selection"),
    row("evaluate", "plan", "selection"),
    row("export", "anyway", "allow-unrecognised"),
    row("calibrate", "sampler", "drawing.sampler"),
    row("calibrate", "steps", "drawing.steps"),
    row("calibrate", "guidance-scale", "drawing.guidance-scale"),
    row("calibrate", "negative-prompt", "drawing.negative-prompt"),
    row("calibrate", "vae-tile", "drawing.vae-tile"),
    row("calibrate", "batch", "drawing.batch"),
    row("evaluate", "sampler", "drawing.sampler"),
    row("evaluate", "steps", "drawing.steps"),
    row("evaluate", "guidance-scale", "drawing.guidance-scale"),
    row("evaluate", "negative-prompt", "drawing.negative-prompt"),
    row("evaluate", "vae-tile", "drawing.vae-tile"),
    row("evaluate", "batch", "drawing.batch"),
    row("score.delta-clip", "sampler", "drawing.sampler"),
    row("score.delta-clip", "steps", "drawing.steps"),
    row("score.delta-clip", "guidance-scale", "drawing.guidance-scale"),
    row("score.delta-clip", "negative-prompt", "drawing.negative-prompt"),
    row("score.delta-clip", "vae-tile", "drawing.vae-tile"),
    row("score.delta-clip", "batch", "drawing.batch"),
];

/// The same error, or for an unknown key of `stage` that the table has, one that says its new name. `within` is what
/// messages call the stage.
pub(super) fn explain(kind: ConfigErrorKind, stage: &str, within: &str) -> ConfigErrorKind {
    let ConfigErrorKind::UnknownKey { key, within: found, known } = kind else { return kind };
    // Inside a block of the stage, messages call the place: `delta-clip` of stage `scores`.
    let block = found.strip_suffix(within).and_then(|text| text.strip_suffix(" of "));
    let block = block.map_or(String::new(), |block| format!(".{}", block.trim_matches('`')));
    let place = format!("{stage}{block}");
    match RENAMED.iter().find(|row| row.stage == place && row.old == key) {
        Some(row) => ConfigErrorKind::RenamedKey { key, within: found, new: row.new },
        None => ConfigErrorKind::UnknownKey { key, within: found, known },
    }
}

#[cfg(test)]
mod tests {
    use miette::Diagnostic;

    use super::*;

    fn unknown(key: &str, within: &str) -> ConfigErrorKind {
        let known = vec!["selection".to_owned()];
        ConfigErrorKind::UnknownKey { key: key.to_owned(), within: within.to_owned(), known }
    }

    #[test]
    fn a_renamed_key_is_refused_with_its_new_name() {
        let within = "stage `student` (use: prune)";
        let kind = explain(unknown("plan", within), "prune", within);
        assert_eq!(kind.to_string(), format!("`plan` in {within} is now called `selection`"));
        assert_eq!(kind.help().map(|help| help.to_string()).as_deref(), Some("write `selection: ...`"));
        let other = explain(unknown("plam", within), "prune", within);
        assert!(matches!(other, ConfigErrorKind::UnknownKey { .. }), "{other}");
    }

    #[test]
    fn a_key_inside_a_block_is_found_too() {
        let within = "stage `scores` (use: score)";
        let inside = format!("`delta-clip` of {within}");
        let kind = explain(unknown("steps", &inside), "score", within);
        assert_eq!(kind.to_string(), format!("`steps` in {inside} is now called `drawing.steps`"));
        let help = kind.help().map(|help| help.to_string()).unwrap_or_default();
        assert!(help.contains("`drawing: { steps: ... }`"), "{help}");
        let top = explain(unknown("steps", within), "score", within);
        assert!(matches!(top, ConfigErrorKind::UnknownKey { .. }), "{top}");
    }
}
