//! How to run on this machine.
