//! Layers with tested gradients; the CPU kernels stand behind them.
