//! Which units to remove, given their scores and a budget.
