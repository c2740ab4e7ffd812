//! Which units must be removed or kept: by a user's pattern, or by a decision during a search.

use super::tree::Tree;

/// For each unit, whether it is removed, if that is decided. Consequences of a rule are decided with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    goes: Vec<Option<bool>>,
}

/// Two rules that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The unit that would be both removed and kept.
    pub unit: usize,
}

impl Rules {
    /// No unit is decided.
    pub fn none(units: usize) -> Self {
        Self { goes: vec![None; units] }
    }

    /// Whether `unit` is removed, if that is decided.
    pub fn goes(&self, unit: usize) -> Option<bool> {
        self.goes[unit]
    }

    /// Decides whether `unit` is removed, by itself or with a unit around it. Parts of a kept unit may be removed.
    pub fn set(&mut self, tree: &Tree, unit: usize, goes: bool) -> Result<(), Contradiction> {
        match self.goes[unit] {
            Some(found) if found == goes => return Ok(()),
            Some(_) => return Err(Contradiction { unit }),
            None => self.goes[unit] = Some(goes),
        }
        if goes {
            for &part in tree.parts(unit) {
                self.set(tree, part, true)?;
            }
        } else {
            self.leave_one(tree, unit)?;
        }
        match tree.parent(unit) {
            Some(parent) if !goes => self.set(tree, parent, false),
            Some(parent) if tree.parts(parent).iter().all(|&part| self.goes[part] == Some(true)) => {
                self.set(tree, parent, true)
            }
            Some(parent) if self.goes[parent] == Some(false) => self.leave_one(tree, parent),
            _ => Ok(()),
        }
    }

    /// Keeps the last remaining part of a kept unit.
    fn leave_one(&mut self, tree: &Tree, unit: usize) -> Result<(), Contradiction> {
        let mut open = tree.parts(unit).iter().filter(|&&part| self.goes[part] != Some(true));
        match (open.next(), open.next()) {
            (Some(&last), None) => self.set(tree, last, false),
            (None, _) if !tree.parts(unit).is_empty() => Err(Contradiction { unit }),
            _ => Ok(()),
        }
    }

    /// The selection that removes only what must be removed.
    pub fn least(&self, tree: &Tree) -> Vec<bool> {
        let mut named: Vec<_> = self.goes.iter().map(|&goes| goes == Some(true)).collect();
        tree.settle(&mut named);
        named
    }

    /// Whether a selection obeys the rules.
    pub fn allow(&self, tree: &Tree, named: &[bool]) -> bool {
        (0..self.goes.len()).all(|unit| self.goes[unit].is_none_or(|goes| goes == tree.is_gone(named, unit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consequences_of_a_rule_are_decided_too() {
        let tree = Tree::new(vec![None, Some(0), Some(1), Some(1), Some(0)]);
        let mut rules = Rules::none(5);
        assert_eq!(rules.set(&tree, 2, true).and_then(|()| rules.set(&tree, 3, true)), Ok(()));
        assert_eq!(rules.goes(1), Some(true));
        assert_eq!(rules.goes(0), None);
        assert_eq!(rules.set(&tree, 0, false), Ok(()));
        assert_eq!(rules.goes(4), Some(false), "the last part of a kept unit");
        assert_eq!(rules.set(&tree, 4, true), Err(Contradiction { unit: 4 }));
        let mut rules = Rules::none(5);
        assert_eq!(rules.set(&tree, 3, false), Ok(()));
        assert_eq!((rules.goes(0), rules.goes(1), rules.goes(2)), (Some(false), Some(false), None));
    }
}
