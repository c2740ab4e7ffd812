//! Branches of a sweep: the swept values that a stage depends on, and the id derived from them.

use std::collections::BTreeMap;

use crate::base::{Digest, StageId};

/// Maximum length of an id. Common file systems limit the name of a folder to 255 bytes.
const LONGEST_ID: usize = 200;

/// The values that a stage depends on, by the names of their axes. Empty outside a sweep and for shared stages.
pub type Branch = BTreeMap<String, String>;

/// `student@criterion=magnitude,ratio=0.3`: axes sorted by name, so that an id does not depend on their order in the
/// file.
pub(super) fn branch_id(origin: &StageId, branch: &Branch) -> StageId {
    if branch.is_empty() {
        return origin.clone();
    }
    let values: Vec<_> = branch.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    let id = format!("{origin}@{}", values.join(","));
    if id.len() <= LONGEST_ID {
        return id.into();
    }
    format!("{origin}@{}", Digest::of(id.as_bytes()).short()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_id_is_cut_to_a_hash() {
        let long = branch_id(&"a".into(), &Branch::from([("b".repeat(250), "1".to_owned())]));
        assert!(long.as_str().len() < 20 && long.as_str().starts_with("a@"), "{long}");
    }
}
