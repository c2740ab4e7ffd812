//! Which unit lies inside which: a Transformer2D holds blocks, a block may hold its attentions.
//!
//! Any proper subset of a unit's parts may be removed; removing all parts removes the unit itself, including its shell.
//! So a selection *names* units, none of them inside another, and never all parts of one unit.

/// Units by their places in walk order; a unit comes before its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    parents: Vec<Option<usize>>,
    parts: Vec<Vec<usize>>,
}

impl Tree {
    /// A tree given by each unit's direct parent, which must come before it.
    pub fn new(parents: Vec<Option<usize>>) -> Self {
        let mut parts = vec![Vec::new(); parents.len()];
        for (unit, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                assert!(parent < unit, "BUG: unit {unit} comes before its parent {parent}");
                parts[parent].push(unit);
            }
        }
        Self { parents, parts }
    }

    /// How many units there are.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether there is no unit.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// The units directly inside `unit`.
    pub fn parts(&self, unit: usize) -> &[usize] {
        &self.parts[unit]
    }

    /// The unit directly around `unit`.
    pub fn parent(&self, unit: usize) -> Option<usize> {
        self.parents[unit]
    }

    /// The units that lie inside no other.
    pub fn roots(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|&unit| self.parents[unit].is_none())
    }

    /// The units without parts.
    pub fn leaves(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|&unit| self.parts[unit].is_empty())
    }

    /// The units around `unit`, from the innermost.
    pub fn around(&self, unit: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.parents[unit], |&parent| self.parents[parent])
    }

    /// Everything inside `unit`, at any depth.
    pub fn inside(&self, unit: usize) -> impl Iterator<Item = usize> {
        (unit + 1..self.len()).filter(move |&other| self.around(other).any(|parent| parent == unit))
    }

    /// Whether one of two units lies inside the other, or is the other.
    pub fn is_nested(&self, one: usize, two: usize) -> bool {
        one == two
            || self.around(one).any(|around| around == two)
            || self.around(two).any(|around| around == one)
    }

    /// Whether `unit` is removed when the units `named` are.
    pub fn is_gone(&self, named: &[bool], unit: usize) -> bool {
        named[unit] || self.around(unit).any(|parent| named[parent])
    }

    /// Names only the outermost units: all parts of a unit become the unit, and units inside a named unit are dropped.
    pub fn settle(&self, named: &mut [bool]) {
        for unit in (0..self.len()).rev() {
            if !self.parts[unit].is_empty() && self.parts[unit].iter().all(|&part| named[part]) {
                named[unit] = true;
            }
        }
        for unit in 0..self.len() {
            named[unit] &= self.around(unit).all(|parent| !named[parent]);
        }
    }

    /// Removes `unit`, or keeps it again; the rest of a removed unit around it stays removed.
    pub fn toggle(&self, named: &mut [bool], unit: usize) {
        if self.is_gone(named, unit) {
            while let Some(whole) = self.around(unit).find(|&parent| named[parent]) {
                named[whole] = false;
                self.parts[whole].iter().for_each(|&part| named[part] = true);
            }
            named[unit] = false;
        } else {
            named[unit] = true;
            self.settle(named);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 holds 1 and 4; 1 holds 2 and 3.
    fn nested() -> Tree {
        Tree::new(vec![None, Some(0), Some(1), Some(1), Some(0), None])
    }

    #[test]
    fn all_parts_are_the_whole_at_every_depth() {
        let tree = nested();
        let mut named = [false, false, true, true, true, false];
        tree.settle(&mut named);
        assert_eq!(named, [true, false, false, false, false, false]);
        assert!(tree.is_gone(&named, 3));
        assert_eq!(tree.inside(0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_toggle_twice_is_none() {
        let tree = nested();
        for unit in 0..5 {
            let before = [false, false, false, true, false, false];
            let mut named = before;
            tree.toggle(&mut named, unit);
            assert_ne!(tree.is_gone(&named, unit), tree.is_gone(&before, unit));
        }
        let mut named = [true, false, false, false, false, false];
        tree.toggle(&mut named, 2);
        assert_eq!(named, [false, false, false, true, true, false]);
        tree.toggle(&mut named, 2);
        assert_eq!(named, [true, false, false, false, false, false]);
    }
}
