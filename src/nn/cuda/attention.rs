//! Launches attention and its gradients.

use candle_core::Result;

use super::channels::Numbers;
use super::launch::{Launch, Launcher, Pointer};

/// Attention of tensors in bf16, or forward in f16: q [batch, n, heads * d], k and v [batch, m, heads * d].
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Attention {
    pub(in crate::nn) batch: usize,
    pub(in crate::nn) heads: usize,
    pub(in crate::nn) n: usize,
    pub(in crate::nn) m: usize,
    pub(in crate::nn) d: usize,
    pub(in crate::nn) causal: bool,
    pub(in crate::nn) numbers: Numbers,
}

/// For each size of head with gradients: the rows of a passing tile forward, for dQ, and for dK and dV, as in the last
/// lines of the `.cu` files. Larger heads need smaller tiles: registers hold the block's sums, and shared memory is
/// 99 KiB where it is smallest, on Ampere and Ada.
const TILES: [(usize, [usize; 3]); 4] =
    [(40, [64, 64, 64]), (64, [64, 64, 64]), (80, [64, 32, 32]), (160, [32, 32, 16])];

/// The size of head that an autoencoder has. Nobody trains one, so there are no gradients.
const WIDE: usize = 512;
/// The rows of its passing tile.
const WIDE_PASSING: usize = 16;

const THREADS: u32 = 128;
/// Rows of a block's own tile: 16 for each of four warps.
const OWN: usize = 64;
/// Rows of a block's own tile for a wide head: two warps share 16.
const WIDE_OWN: usize = 32;

/// Whether there are kernels in bf16 for heads of this size, and for their gradients if they are wanted.
pub(in crate::nn) fn has(d: usize, gradients: bool) -> bool {
    TILES.iter().any(|(known, _)| *known == d) || (d == WIDE && !gradients)
}

impl Attention {
    /// Elements of lse and of delta, [batch, heads, n] in f32.
    pub(in crate::nn) fn statistics(&self) -> usize {
        self.batch * self.heads * self.n
    }

    /// Writes the output, shaped as q, and the log-sum-exp of each row of scores.
    pub(in crate::nn) fn forward(
        &self,
        launcher: &dyn Launcher,
        [q, k, v]: [Pointer; 3],
        [out, lse]: [Pointer; 2],
    ) -> Result<()> {
        let [of_q, of_k] = self.bytes();
        let kernel = if self.numbers == Numbers::F16 { "forward_f16" } else { "forward" };
        self.launch(kernel, self.n, self.shared_bytes(1, 0))
            .moving(2 * of_q + 2 * of_k + 4 * self.statistics())
            .pointers([q, k, v, out, lse])
            .sizes([self.n, self.m, self.heads])
            .numbers([self.scale()])
            .sizes([usize::from(self.causal)])
            .run(launcher)
    }

    /// Writes the gradients that are wanted: of q, and of k and v. `delta` is room for a number per row of each head.
    pub(in crate::nn) fn backward(
        &self,
        launcher: &dyn Launcher,
        [q, k, v]: [Pointer; 3],
        [out, lse, d_out, delta]: [Pointer; 4],
        dq: Option<Pointer>,
        dkv: Option<[Pointer; 2]>,
    ) -> Result<()> {
        let rows_of_block = THREADS as usize / 32;
        let grid = [self.n.div_ceil(rows_of_block), self.heads, self.batch];
        let ([of_q, of_k], of_row) = (self.bytes(), 4 * self.statistics());
        Launch::new(format!("attention_delta_{}", self.d), grid, THREADS)
            .moving(2 * of_q + of_row)
            .pointers([out, d_out, delta])
            .sizes([self.n, self.heads])
            .run(launcher)?;
        let finish = |launch: Launch| {
            launch
                .sizes([self.n, self.m, self.heads])
                .numbers([self.scale()])
                .sizes([usize::from(self.causal)])
                .run(launcher)
        };
        if let Some(dq) = dq {
            let launch = self.launch("dq", self.n, self.shared_bytes(2, 1));
            let launch = launch.moving(3 * of_q + 2 * of_k + 2 * of_row);
            finish(launch.pointers([q, k, v, d_out, lse, delta, dq]))?;
        }
        if let Some([dk, dv]) = dkv {
            // Beside the tiles, lse and delta of the passing rows.
            let statistics = 2 * self.passing(2) * size_of::<f32>();
            let launch = self.launch("dkv", self.m, self.shared_bytes(2, 2) + statistics);
            let launch = launch.moving(2 * of_q + 4 * of_k + 2 * of_row);
            finish(launch.pointers([q, k, v, d_out, lse, delta, dk, dv]))?;
        }
        Ok(())
    }

    /// Bytes of the queries, and of the keys.
    fn bytes(&self) -> [usize; 2] {
        [self.n, self.m].map(|rows| 2 * self.batch * rows * self.heads * self.d)
    }

    fn scale(&self) -> f32 {
        (self.d as f64).sqrt().recip() as f32
    }

    /// A block per tile of `rows` rows of each head.
    fn launch(&self, kernel: &str, rows: usize, shared_bytes: usize) -> Launch {
        let grid = [rows.div_ceil(self.own()), self.heads, self.batch];
        Launch::new(format!("attention_{kernel}_{}", self.d), grid, THREADS).shared(shared_bytes)
    }

    /// Rows of a block's own tile.
    fn own(&self) -> usize {
        if self.d == WIDE { WIDE_OWN } else { OWN }
    }

    fn passing(&self, kernel: usize) -> usize {
        if (self.d, kernel) == (WIDE, 0) {
            return WIDE_PASSING;
        }
        let (_, tiles) = TILES.iter().find(|(d, _)| *d == self.d).expect("BUG: a head without kernels");
        tiles[kernel]
    }

    /// `own` tiles of the block, and two operands' passing tiles, each twice: one is used while the next is copied.
    pub(in crate::nn) fn shared_bytes(&self, own: usize, kernel: usize) -> usize {
        let row = self.d.next_multiple_of(16) + 8;
        (own * self.own() + 4 * self.passing(kernel)) * row * 2
    }
}
