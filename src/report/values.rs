//! How a measured value and its good direction are written.

use maud::{Markup, html};

use super::chart;
use crate::base::units;
use crate::metric::Better;

/// Which direction is good, in words.
pub(super) fn arrow(better: Option<Better>) -> Markup {
    html! {
        span class="soft" {
            @match better {
                Some(Better::Higher) => { " ↑ higher is better" }
                Some(Better::Lower) => { " ↓ lower is better" }
                Some(Better::None) | None => {}
            }
        }
    }
}

/// Which direction is good, as a sign.
pub(super) fn sign(better: Better) -> &'static str {
    match better {
        Better::Higher => "↑",
        Better::Lower => "↓",
        Better::None => "",
    }
}

/// A number with its unit, rounded for reading. What is counted is said beside it.
pub(super) fn value(value: f64, unit: &str) -> String {
    match unit {
        "B" | "bytes" => units::bytes(value as u64),
        "s" => units::seconds(value),
        "%" => format!("{value:.1} %"),
        "parameters" | "MAC" => units::count(value as u64),
        _ if value.abs() >= 1e4 => format!("{} {unit}", units::count(value as u64)).trim_end().to_owned(),
        _ => format!("{} {unit}", chart::number(value)).trim_end().to_owned(),
    }
}
