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

/// A thread gets about so many pieces of the least size; if there would be fewer, they are made smaller. With 8, the threads that
/// compute U-Nets of SD had up to 1.06 of their share of the work, with 16 1.05 (a simulation of up to 64 threads).
pub(super) const FEW: usize = 16;

/// Cuts `0..total` into pieces for `threads` threads, of at least `least` where there is enough for everyone.
pub(super) fn cut(total: usize, threads: usize, least: usize) -> Vec<Range<usize>> {
    let least = least.min(total / (FEW * threads)).max(1);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The most work of a thread relative to the mean, if each takes the next piece as soon as it is free.
    fn imbalance(total: usize, threads: usize, least: usize) -> f64 {
        let mut work = vec![0; threads];
        for piece in cut(total, threads, least) {
            *work.iter_mut().min().expect("there is a thread") += piece.len();
        }
        assert_eq!(work.iter().sum::<usize>(), total);
        let most = work.iter().max().expect("there is a thread");
        *most as f64 * threads as f64 / total as f64
    }

    #[test]
    fn threads_get_equal_work() {
        for threads in 1..=64 {
            for (total, least, allowed) in
                [(64 * threads, 4, 1.05), (20 * threads, 4, 1.1), (500_000, 4, 1.005)]
            {
                let found = imbalance(total, threads, least);
                assert!(found <= allowed, "{total} on {threads} threads: {found}");
            }
        }
    }

    #[test]
    fn pieces_cover_everything_in_order_and_shrink() {
        for (total, threads, least) in [(0, 3, 2), (1, 1, 5), (7, 64, 2), (1000, 2, 4), (6840, 48, 4)] {
            let pieces = cut(total, threads, least);
            let mut end = 0;
            for piece in &pieces {
                assert_eq!(piece.start, end);
                end = piece.end;
            }
            assert_eq!(end, total);
            let sizes: Vec<usize> = pieces.iter().map(Range::len).collect();
            assert!(sizes.is_sorted_by(|a, b| a >= b) && !sizes.contains(&0), "{sizes:?}");
        }
    }

    #[test]
    fn every_piece_is_done_once() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            let (done, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
            pool.install(|| {
                each((1..=100).collect(), |piece: usize| {
                    done.fetch_add(1, Ordering::Relaxed);
                    sum.fetch_add(piece, Ordering::Relaxed);
                });
            });
            assert_eq!((done.into_inner(), sum.into_inner()), (100, 5050));
        }
    }
}
