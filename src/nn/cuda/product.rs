//! Matrix products of row-major matrices, in the terms of BLAS, whose matrices are column-major.
//!
//! A row-major matrix is the transpose of the column-major matrix with the same numbers in memory. So `c = a b` is computed as
//! `c' = b' a'`: the operands change places, and each is transposed unless it was already.

use candle_core::{Result, bail};

use super::channels::Numbers;
use super::launch::Pointer;

/// An operand: a row-major matrix in memory, used as it is or transposed.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Matrix {
    pub(in crate::nn) pointer: Pointer,
    pub(in crate::nn) transposed: bool,
}

impl Matrix {
    pub(in crate::nn) fn new(pointer: Pointer) -> Self {
        Self { pointer, transposed: false }
    }

    pub(in crate::nn) fn transposed(pointer: Pointer) -> Self {
        Self { pointer, transposed: true }
    }
}

/// `c [m, n] = a [m, k] b [k, n]`, or `c += a b`.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Product {
    pub(in crate::nn) a: Matrix,
    pub(in crate::nn) b: Matrix,
    pub(in crate::nn) c: Pointer,
    /// m, n and k.
    pub(in crate::nn) sizes: [usize; 3],
    /// The type of both operands.
    pub(in crate::nn) operands: Numbers,
    /// The type of the result; sums are f32.
    pub(in crate::nn) result: Numbers,
    /// Whether the product is added to what is in `c`.
    pub(in crate::nn) adds: bool,
}

/// A call of BLAS' `gemm`: `c [m, n] = op(a) op(b) + beta c` with column-major matrices.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(any(feature = "cuda", test)), expect(dead_code, reason = "only what multiplies reads all"))]
pub(in crate::nn) struct Gemm {
    /// Whether the first and the second operand are transposed.
    pub(in crate::nn) transposed: [bool; 2],
    pub(in crate::nn) m: i32,
    pub(in crate::nn) n: i32,
    pub(in crate::nn) k: i32,
    pub(in crate::nn) a: Pointer,
    /// Elements from column to column.
    pub(in crate::nn) lda: i32,
    pub(in crate::nn) b: Pointer,
    pub(in crate::nn) ldb: i32,
    pub(in crate::nn) beta: f32,
    pub(in crate::nn) c: Pointer,
    pub(in crate::nn) ldc: i32,
    pub(in crate::nn) operands: Numbers,
    pub(in crate::nn) result: Numbers,
    /// Bytes of the three matrices.
    pub(in crate::nn) bytes: u64,
}

impl Product {
    pub(super) fn gemm(&self) -> Result<Gemm> {
        let [m, n, k] = self.sizes;
        let size = |size: usize| match i32::try_from(size) {
            Ok(size) => Ok(size),
            Err(_) => bail!("a matrix product of {:?}: at most {} are possible", self.sizes, i32::MAX),
        };
        let columns = |matrix: Matrix, rows: usize, columns: usize| {
            if matrix.transposed { size(rows) } else { size(columns) }
        };
        let (operand, result) = (self.operands.bytes(), self.result.bytes());
        let of_result = m * n * result * if self.adds { 2 } else { 1 };
        Ok(Gemm {
            transposed: [self.b.transposed, self.a.transposed],
            m: size(n)?,
            n: size(m)?,
            k: size(k)?,
            a: self.b.pointer,
            lda: columns(self.b, k, n)?,
            b: self.a.pointer,
            ldb: columns(self.a, m, k)?,
            beta: if self.adds { 1.0 } else { 0.0 },
            c: self.c,
            ldc: size(n)?,
            operands: self.operands,
            result: self.result,
            bytes: ((m * k + k * n) * operand + of_result) as u64,
        })
    }
}
