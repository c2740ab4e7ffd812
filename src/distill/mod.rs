//! Retrains a pruned U-Net against its teacher.
