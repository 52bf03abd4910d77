//! candle's quantiser writes, candle's dequantiser and ours read.

use super::*;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::convert::Infallible;

const KINDS: [(GgmlDType, Stored); 11] = [
    (GgmlDType::Q4_0, Stored::Q4_0),
    (GgmlDType::Q4_1, Stored::Q4_1),
    (GgmlDType::Q5_0, Stored::Q5_0),
    (GgmlDType::Q5_1, Stored::Q5_1),
    (GgmlDType::Q8_0, Stored::Q8_0),
    (GgmlDType::Q4K, Stored::Q4K),
    (GgmlDType::Q5K, Stored::Q5K),
    (GgmlDType::Q6K, Stored::Q6K),
    (GgmlDType::F16, Stored::F16),
    (GgmlDType::BF16, Stored::BF16),
    (GgmlDType::F32, Stored::F32),
];

/// Rows in memory.
struct Bytes<'a>(&'a [u8], usize);

impl Source for Bytes<'_> {
    type Error = Infallible;

    fn read(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.0[rows.start * self.1..rows.end * self.1]);
        Ok(())
    }
}

pub(in super::super) fn pack(
    arena: &Arena,
    stored: Stored,
    rows: usize,
    columns: usize,
    bytes: &[u8],
) -> Option<Matrix> {
    let packer = Packer::new(arena, stored, rows, columns)?;
    let Ok(matrix) = packer.pack(&Bytes(bytes, stored.row_bytes(columns)?));
    Some(matrix)
}

#[test]
fn rows_come_back_as_candle_dequantises_them() {
    const ROWS: usize = 21;
    const COLUMNS: usize = 512;
    for size in [1.0f32, 1e-4] {
        let values: Vec<f32> = (0..ROWS * COLUMNS).map(|i| ((i * i % 1013) as f32 / 1013.0 - 0.4) * size).collect();
        let tensor = Tensor::from_vec(values, (ROWS, COLUMNS), &Device::Cpu).unwrap();
        for (dtype, stored) in KINDS {
            assert_eq!(stored.block(), (dtype.block_size(), dtype.type_size()), "{dtype:?}");
            let quantised = QTensor::quantize(&tensor, dtype).unwrap();
            let expected = quantised.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            let bytes = quantised.data().unwrap();
            let arena = Arena::new(stored.kind().bytes(ROWS, COLUMNS)).unwrap();
            let matrix = pack(&arena, stored, ROWS, COLUMNS, &bytes).unwrap();
            // Only the K kinds' scales are rounded, to 11 bits.
            let exact = !matches!(dtype, GgmlDType::Q4K | GgmlDType::Q5K | GgmlDType::Q6K);
            let mut row = [0.0; COLUMNS];
            for (index, expected) in expected.iter().enumerate() {
                let row_bytes = stored.row_bytes(COLUMNS).unwrap();
                dequantise_row(stored, &bytes[index * row_bytes..(index + 1) * row_bytes], &mut row);
                assert_eq!(row[..], expected[..], "{dtype:?}, row {index} as stored");
                unpack_row(&matrix, index, &mut row);
                for (found, expected) in row.iter().zip(expected) {
                    let close = (found - expected).abs() <= if exact { 0.0 } else { size * 6e-4 };
                    assert!(close, "{dtype:?}, row {index}: {found} instead of {expected}");
                }
            }
        }
    }
}

#[test]
fn wrong_sizes_and_a_full_arena_are_refused() {
    let arena = Arena::new(Stored::Q8_0.kind().bytes(16, 64)).unwrap();
    assert!(Packer::new(&arena, Stored::Q8_0, 16, 63).is_none());
    assert!(Packer::new(&arena, Stored::Q8_0, 16, 0).is_none());
    assert!(Packer::new(&arena, Stored::Q8_0, 17, 64).is_none());
    assert!(Packer::new(&arena, Stored::Q8_0, 16, 64).is_some());
    assert!(Packer::new(&arena, Stored::Q8_0, 16, 64).is_none());
}
