//! Names that a pattern stands for.

/// Whether `name` is `pattern`, in which `*` stands for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().expect("text has at least one part");
    let (Some(mut rest), last) = (name.strip_prefix(first), parts.next_back()) else { return false };
    let Some(last) = last else { return rest.is_empty() };
    for part in parts {
        // The first place is the best one: it leaves the most for the parts after it.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        assert!(matches("mid_block.*", "mid_block.resnets.0"));
        assert!(matches("*.attentions.*", "up_blocks.1.attentions.0.transformer_blocks.3"));
        assert!(matches("*", "a") && matches("a*b*", "axxbyy") && matches("a", "a"));
        assert!(!matches("mid_block", "mid_block.resnets.0") && !matches("*.b", "a.bc"));
        assert!(!matches("ab*ba", "aba") && matches("ab*ba", "abba") && matches("**", ""));
        let (pattern, name) = ("*a".repeat(500) + "b", "a".repeat(5000));
        assert!(!matches(&pattern, &name), "and quickly");
    }
}
