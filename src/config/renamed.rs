//! Keys that were renamed or moved. A pipeline with an old key is refused, and the message gives the new one.

use super::error::ConfigErrorKind;

/// A key that is no longer known.
struct Renamed {
    /// The stages that had it, by their `use:` names; a dot leads into a block of the stage.
    stages: &'static [&'static str],
    /// The old key.
    old: &'static str,
    /// The new key; dots lead into a block.
    new: &'static str,
}

const fn row(stages: &'static [&'static str], old: &'static str, new: &'static str) -> Renamed {
    Renamed { stages, old, new }
}

/// The places whose parameters of drawing are now in a block.
const DRAW: &[&str] = &["calibrate", "evaluate", "score.delta-clip"];

const RENAMED: &[Renamed] = &[
    row(&["prune", "evaluate"], "plan", "selection"),
    row(&["export"], "anyway", "allow-unrecognised"),
    row(DRAW, "sampler", "drawing.sampler"),
    row(DRAW, "steps", "drawing.steps"),
    row(DRAW, "guidance-scale", "drawing.guidance-scale"),
    row(DRAW, "negative-prompt", "drawing.negative-prompt"),
    row(DRAW, "vae-tile", "drawing.vae-tile"),
    row(DRAW, "batch", "drawing.batch"),
];

/// The same error, or one with the new name if the unknown key of `stage` is in the table. `within` is what messages
/// call the stage.
pub(super) fn explain(kind: ConfigErrorKind, stage: &str, within: &str) -> ConfigErrorKind {
    let ConfigErrorKind::UnknownKey { key, within: found, known } = kind else { return kind };
    // Inside a block of the stage, messages call the place: `delta-clip` of stage `scores`.
    let block = found.strip_suffix(within).and_then(|text| text.strip_suffix(" of "));
    let block = block.map_or(String::new(), |block| format!(".{}", block.trim_matches('`')));
    let place = format!("{stage}{block}");
    match RENAMED.iter().find(|row| row.stages.contains(&place.as_str()) && row.old == key) {
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
