//! What the kernels over rows with channels last share: their variants, slabs of rows, and sums over slabs.

use candle_core::{DType, Result, bail};

use super::launch::{Launch, Launcher, Pointer};

/// The type of the numbers that flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nn) enum Numbers {
    Bf16,
    /// Forward only: nothing is trained in it.
    F16,
    F32,
}

impl Numbers {
    /// The kernels' name for a tensor's type.
    pub(in crate::nn) fn of(dtype: DType) -> Result<Self> {
        match dtype {
            DType::BF16 => Ok(Self::Bf16),
            DType::F16 => Ok(Self::F16),
            DType::F32 => Ok(Self::F32),
            other => bail!("BUG: no kernel of ours computes in {other:?}"),
        }
    }

    /// The type of tensors.
    pub(in crate::nn) fn dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
            Self::F32 => DType::F32,
        }
    }

    /// The word for it in the names of kernels.
    pub(in crate::nn) fn word(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    pub(in crate::nn) fn bytes(self) -> usize {
        16 / self.wide()
    }

    /// How many numbers 16 bytes hold.
    fn wide(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 8,
            Self::F32 => 4,
        }
    }

    /// How many numbers of a row of so many a thread moves at once.
    pub(super) fn pack(self, length: usize) -> usize {
        if length.is_multiple_of(self.wide()) { self.wide() } else { 1 }
    }

    /// The variant of a kernel for rows of so many numbers.
    pub(super) fn variant(self, kernel: &str, length: usize) -> String {
        let numbers = self.word();
        let width = if length.is_multiple_of(self.wide()) { "wide" } else { "single" };
        format!("{kernel}_{numbers}_{width}")
    }

    /// Bytes of shared memory in which a block adds `sums` numbers per channel: `Slab` in `channels.cuh`.
    pub(super) fn sums_bytes(self, sums: usize, channels: usize) -> usize {
        let across = (channels / self.pack(channels)).min(CHANNEL_THREADS as usize);
        let down = CHANNEL_THREADS as usize / across;
        sums * down * channels * size_of::<f32>()
    }
}

/// Threads of a block that takes a slab.
pub(super) const CHANNEL_THREADS: u32 = 256;

/// Rows cut into slabs, each for one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slabs {
    /// Rows of each slab but the last.
    pub(super) rows: usize,
    pub(super) count: usize,
}

/// Blocks that keep a large card busy, a few for each of its processors.
const BLOCKS: usize = 512;
/// More slabs of one sample would make merging them dear.
const MOST_SLABS: usize = 64;
const LEAST_ROWS: usize = 8;

impl Slabs {
    /// Those of each of `batch` samples of `rows` rows.
    pub(super) fn new(batch: usize, rows: usize) -> Self {
        let wanted = (BLOCKS / batch.max(1)).clamp(1, MOST_SLABS);
        let rows_each = rows.div_ceil(wanted).max(LEAST_ROWS);
        Self { rows: rows_each, count: rows.div_ceil(rows_each) }
    }
}

/// out [outer, width] = the sums over `parts` of input [outer, parts, width], in f32.
pub(super) fn fold(
    launcher: &dyn Launcher,
    [outer, parts, width]: [usize; 3],
    input: Pointer,
    out: Pointer,
) -> Result<()> {
    Launch::new("fold_parts", [width.div_ceil(32), outer, 1], 256)
        .shared(256 * size_of::<f32>())
        .moving(outer * (parts + 1) * width * size_of::<f32>())
        .pointers([input, out])
        .sizes([parts, width])
        .run(launcher)
}
