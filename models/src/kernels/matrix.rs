//! Weight matrices as the kernels read them.
//!
//! Sixteen rows stand side by side: a vector register holds the same four columns of all of them, so a dot product needs
//! no sum across lanes, and 4-bit weights stay 4 bits wide. A group of 16 rows is first the numbers of all its blocks of
//! 32 columns, then their scales; both are read from front to end.

use super::arena::Piece;

/// Rows side by side.
pub(crate) const GROUP_ROWS: usize = 16;
/// Columns that share a scale, and by which activations are quantised.
pub(crate) const BLOCK_COLUMNS: usize = 32;

/// How a matrix is held. The weight is `scale * (number - zero)`, or `scale * number + min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 4 bits, zero 8: Q4_0.
    Q4,
    /// 4 bits and a minimum: Q4_1, Q4_K.
    Q4Min,
    /// 5 bits, zero 16: Q5_0.
    Q5,
    /// 5 bits and a minimum: Q5_1, Q5_K.
    Q5Min,
    /// 6 bits, zero 32, a scale for each 16 columns: Q6_K.
    Q6,
    /// 8 bits, zero 128: Q8_0.
    Q8,
    F16,
    F32,
}

/// A matrix of `rows` outputs and `columns` inputs, repacked.
pub(crate) struct Matrix {
    pub(super) kind: Kind,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// A power of two that all stored scales are to be multiplied by; see [`super::pack`].
    pub(super) factor: f32,
    pub(super) data: Piece,
}

impl Kind {
    /// Bits of a number.
    pub(super) const fn bits(self) -> usize {
        match self {
            Kind::Q4 | Kind::Q4Min => 4,
            Kind::Q5 | Kind::Q5Min => 5,
            Kind::Q6 => 6,
            Kind::Q8 => 8,
            Kind::F16 => 16,
            Kind::F32 => 32,
        }
    }

    /// f16 scales and minima of a block of one row.
    pub(super) const fn scales(self) -> usize {
        match self {
            Kind::Q4 | Kind::Q5 | Kind::Q8 => 1,
            Kind::Q4Min | Kind::Q5Min | Kind::Q6 => 2,
            Kind::F16 | Kind::F32 => 0,
        }
    }

    pub(super) const fn is_float(self) -> bool {
        matches!(self, Kind::F16 | Kind::F32)
    }

    /// Bytes of one group's numbers. Floats are not cut into blocks.
    pub(super) const fn number_bytes(self, columns: usize) -> usize {
        GROUP_ROWS * self.bits() * columns / 8
    }

    /// Bytes of one group, a multiple of a cache line.
    pub(super) const fn group_bytes(self, columns: usize) -> usize {
        let scales = columns / BLOCK_COLUMNS * self.scales() * GROUP_ROWS * size_of::<u16>();
        (self.number_bytes(columns) + scales).next_multiple_of(64)
    }

    /// Bytes of a whole matrix.
    pub(crate) const fn bytes(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(GROUP_ROWS) * self.group_bytes(columns)
    }
}

impl Matrix {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP_ROWS)
    }

    /// One group's bytes.
    pub(super) fn group(&self, group: usize) -> &[u8] {
        let len = self.kind.group_bytes(self.columns);
        &self.data[group * len..(group + 1) * len]
    }
}
