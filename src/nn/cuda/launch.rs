//! The seam between the code that launches kernels and what runs them: a card, the emulation in tests, or nothing at
//! all where launches are counted.

use candle_core::{Result, bail};

/// An address in the memory of what runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nn) struct Pointer(pub(in crate::nn) u64);

impl Pointer {
    /// Whether kernels can move 16 bytes at a time from here.
    pub(in crate::nn) fn is_aligned(self) -> bool {
        self.0.is_multiple_of(ALIGNMENT)
    }
}

/// An argument of a kernel, passed by value.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(any(feature = "cuda", test)), expect(dead_code, reason = "only what runs kernels reads them"))]
pub(in crate::nn) enum Argument {
    Pointer(u64),
    Int(i32),
    Float(f32),
}

/// Runs kernels, one after the other.
pub(in crate::nn) trait Launcher {
    fn launch(&self, launch: &Launch) -> Result<()>;
}

/// A kernel with its grid and arguments, in the order of the kernel's parameters.
#[derive(Debug)]
#[cfg_attr(not(any(feature = "cuda", test)), expect(dead_code, reason = "only what runs kernels reads all"))]
pub(in crate::nn) struct Launch {
    pub(in crate::nn) kernel: String,
    /// Blocks in x, y and z.
    pub(in crate::nn) grid: [u32; 3],
    /// Threads of a block.
    pub(in crate::nn) threads: u32,
    /// Shared memory of a block; a card must be told before it gives a kernel more than 48 KiB.
    pub(in crate::nn) shared_bytes: u32,
    pub(in crate::nn) arguments: Vec<Argument>,
    /// Bytes that it reads and writes if each number comes from memory once.
    pub(in crate::nn) bytes: u64,
    /// What a kernel cannot take.
    refused: Option<String>,
}

/// The largest sizes of a grid, for every card.
const LARGEST_GRID: [usize; 3] = [i32::MAX as usize, 65_535, 65_535];

/// Kernels move 16 bytes at a time.
pub(in crate::nn) const ALIGNMENT: u64 = 16;

impl Launch {
    /// A launch over `grid` blocks of `threads` threads.
    pub(in crate::nn) fn new(kernel: impl Into<String>, grid: [usize; 3], threads: u32) -> Self {
        let fits = grid.iter().zip(LARGEST_GRID).all(|(&size, largest)| size <= largest);
        let refused = (!fits).then(|| format!("a grid of {grid:?} blocks, more than {LARGEST_GRID:?}"));
        let grid = grid.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        Self {
            kernel: kernel.into(),
            grid,
            threads,
            shared_bytes: 0,
            arguments: Vec::new(),
            bytes: 0,
            refused,
        }
    }

    /// With so many bytes of shared memory per block.
    pub(in crate::nn) fn shared(self, bytes: usize) -> Self {
        Self { shared_bytes: bytes as u32, ..self }
    }

    /// Moving so many bytes of memory.
    pub(in crate::nn) fn moving(self, bytes: usize) -> Self {
        Self { bytes: bytes as u64, ..self }
    }

    /// Adds operands.
    pub(in crate::nn) fn pointers<const N: usize>(mut self, pointers: [Pointer; N]) -> Self {
        for Pointer(address) in pointers {
            if !address.is_multiple_of(ALIGNMENT) {
                self.refused = Some(format!("an operand at {address:#x}, not a multiple of {ALIGNMENT}"));
            }
            self.arguments.push(Argument::Pointer(address));
        }
        self
    }

    /// Adds sizes.
    pub(in crate::nn) fn sizes<const N: usize>(mut self, sizes: [usize; N]) -> Self {
        for size in sizes {
            let size = i32::try_from(size).unwrap_or_else(|_| {
                self.refused = Some(format!("a size of {size}, more than {}", i32::MAX));
                i32::MAX
            });
            self.arguments.push(Argument::Int(size));
        }
        self
    }

    /// Adds numbers.
    pub(in crate::nn) fn numbers<const N: usize>(mut self, numbers: [f32; N]) -> Self {
        self.arguments.extend(numbers.map(Argument::Float));
        self
    }

    /// Runs it, unless there is nothing to do.
    pub(in crate::nn) fn run(self, launcher: &dyn Launcher) -> Result<()> {
        if let Some(refused) = &self.refused {
            bail!("{}: {refused}", self.kernel)
        }
        if self.grid.contains(&0) { Ok(()) } else { launcher.launch(&self) }
    }
}
