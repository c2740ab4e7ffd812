//! Work in pieces: large ones first and smaller ones towards the end, taken in this order by whichever thread is free.
//!
//! A thread that another program slows down then keeps the others waiting for one small piece at most, and the number of pieces
//! grows with the number of threads (guided self-scheduling, Polychronopoulos and Kuck 1987). Only work whose result does not depend
//! on the cut may be cut like this.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

/// Every piece is this part of what remains for each thread.
const SHARE: usize = 2;

/// Cuts `0..total` into pieces for `threads` threads, of at least `least` except the last.
pub(super) fn cut(total: usize, threads: usize, least: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut first = 0;
    while first < total {
        let rest = total - first;
        let size = if threads == 1 { rest } else { rest.div_ceil(SHARE * threads).max(least).min(rest) };
        pieces.push(first..first + size);
        first += size;
    }
    pieces
}

/// Does `work` for each piece, in order, each on the first thread that is free.
pub(super) fn each<Piece: Send>(pieces: Vec<Piece>, work: impl Fn(Piece) + Sync) {
    let threads = rayon::current_num_threads().min(pieces.len());
    if threads <= 1 {
        return pieces.into_iter().for_each(work);
    }
    let pieces = Mutex::new(pieces.into_iter());
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
        while let Some(piece) = next() {
            work(piece);
        }
    });
}
