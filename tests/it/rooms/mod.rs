//! One module of the library each, against references that share no code with it.

mod criteria;
mod distill;
mod encode;
mod evaluate;
mod export;
mod fit;
mod layouts;
mod lora;
mod model;
mod odd_pictures;
mod prune;
mod reconstruct;
mod refine;
mod round_trip;
mod sample;
mod score;
mod select;
mod sources;
mod verdicts;
mod zoo;
