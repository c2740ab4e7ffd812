//! Stands in for the instructions on processors that cannot have them.

use super::super::gemm::{Matrix, Write};
use super::super::window::Window;
use super::layout::{Left, Packing, Part, Right};
use super::seen::Seen;

/// No value of this type exists.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn::cpu) enum Unit {}

/// Neither does one of this.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tiles {}

impl Tiles {
    pub(super) fn multiply(self, _: Left, _: Right, _: usize, _: Write, _: &mut Window) {
        match self {}
    }
}

impl Unit {
    /// There are none.
    pub(in crate::nn::cpu) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn tiles(self) -> Option<Tiles> {
        match self {}
    }

    pub(in crate::nn::cpu) fn round(self, _: &[f32], _: f32, _: &mut [u16]) {
        match self {}
    }

    pub(in crate::nn::cpu) fn round_rows(self, _: Matrix, _: usize, _: f32, _: &mut [u16]) {
        match self {}
    }

    pub(in crate::nn::cpu) fn pack_rows(self, _: &Packing, _: &[f32], _: usize, _: usize, _: &mut [u32]) {
        match self {}
    }

    pub(in crate::nn::cpu) fn pack_rounded(self, _: &Packing, _: &[u16], _: usize, _: usize, _: &mut [u32]) {
        match self {}
    }

    pub(in crate::nn::cpu) fn pack_columns(self, _: &Packing, _: &[u16], _: usize, _: usize, _: &mut [u32]) {
        match self {}
    }

    pub(super) fn weigh(self, _: &[f32], _: usize, _: &mut Seen, _: &mut [u16]) {
        match self {}
    }

    pub(super) fn tile<const R: usize, const V: usize>(
        self,
        _: &Part,
        _: [usize; 2],
        _: usize,
        _: &mut Window,
    ) {
        match self {}
    }
}
