//! The instruction sets against each other bit by bit, and against plain sums in f64.

use super::arena::Arena;
use super::pack::{Stored, tests::pack, unpack_row};
use super::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ALL: [Stored; 11] = [
    Stored::Q4_0,
    Stored::Q4_1,
    Stored::Q5_0,
    Stored::Q5_1,
    Stored::Q8_0,
    Stored::Q4K,
    Stored::Q5K,
    Stored::Q6K,
    Stored::F16,
    Stored::BF16,
    Stored::F32,
];

fn sets() -> Vec<Kernels> {
    InstructionSet::available().into_iter().filter_map(Kernels::of).collect()
}

/// A matrix of random bits, but for its f16 (or f32) scales, which are small numbers.
fn random_matrix(random: &mut ChaCha8Rng, stored: Stored, rows: usize, columns: usize) -> Arc<Matrix> {
    let (width, block_bytes) = stored.block();
    let mut bytes = vec![0; rows * columns / width * block_bytes];
    random.fill(&mut bytes[..]);
    let halves: &[usize] = match stored {
        Stored::Q4_0 | Stored::Q5_0 | Stored::Q8_0 => &[0],
        Stored::Q4_1 | Stored::Q5_1 | Stored::Q4K | Stored::Q5K => &[0, 2],
        Stored::Q6K => &[208],
        Stored::F16 | Stored::BF16 | Stored::F32 => &[],
    };
    for block in bytes.chunks_exact_mut(block_bytes) {
        let small = random.random_range(-0.02f32..0.02);
        match stored {
            Stored::F16 => block.copy_from_slice(&half::f16::from_f32(small).to_le_bytes()),
            Stored::BF16 => block.copy_from_slice(&half::bf16::from_f32(small).to_le_bytes()),
            Stored::F32 => block.copy_from_slice(&small.to_le_bytes()),
            _ => {}
        }
        for &at in halves {
            let small = half::f16::from_f32(random.random_range(-0.02f32..0.02));
            block[at..at + 2].copy_from_slice(&small.to_le_bytes());
        }
    }
    let arena = Arena::new(stored.kind().bytes(rows, columns)).unwrap();
    Arc::new(pack(&arena, stored, rows, columns, &bytes).unwrap())
}

fn random_rows(random: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.random_range(-3.0f32..3.0)).collect()
}

fn input_of(kernels: &Kernels, pass: &Pass<'_>, rows: &[f32], width: usize) -> Input {
    let mut input = Input::default();
    kernels.rows(pass, rows.len() / width, width, &mut input, |token, row| {
        row.copy_from_slice(&rows[token * width..(token + 1) * width]);
    });
    input
}

fn product(kernels: &Kernels, pass: &Pass<'_>, matrix: &Arc<Matrix>, rows: &[f32]) -> Vec<f32> {
    let input = input_of(kernels, pass, rows, matrix.columns);
    let mut output = vec![0.0; input.tokens * matrix.rows];
    kernels.multiply(pass, &[Part { matrix: matrix.clone(), bias: None }], &input, &mut output, false);
    output
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn products_are_the_same_bits_everywhere_and_close_to_the_exact_ones() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let pool = Pool::new(2).unwrap();
    let pass = pool.pass();
    for stored in ALL {
        for (rows, blocks, tokens) in [(16, 1, 1), (40, 2, 3), (33, 3, 15), (160, 1, 9)] {
            let columns = blocks * stored.block().0.max(32);
            let matrix = random_matrix(&mut random, stored, rows, columns);
            let x = random_rows(&mut random, tokens * columns);
            let expected = product(&sets()[0], &pass, &matrix, &x);
            for kernels in &sets()[1..] {
                assert_eq!(bits(&expected), bits(&product(kernels, &pass, &matrix, &x)), "{stored:?}");
            }
            let mut weights = vec![0.0; columns];
            for row in 0..rows {
                unpack_row(&matrix, row, &mut weights);
                for token in 0..tokens {
                    let x = &x[token * columns..(token + 1) * columns];
                    let terms = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                    let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                    let found = f64::from(expected[token * rows + row]);
                    // Fifteen bits of activation: half a step is 1/32,512 of the block's greatest.
                    let close = (found - sum).abs() <= size * 2e-4 + 1e-5;
                    assert!(close, "{stored:?}, row {row}, token {token}: {found}, exact {sum} of {size}");
                }
            }
        }
    }
}

#[test]
fn a_tokens_product_does_not_depend_on_its_neighbours() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let pool = Pool::new(2).unwrap();
    let pass = pool.pass();
    for kernels in sets() {
        for stored in ALL {
            let (columns, tokens) = (stored.block().0.max(96), 13);
            let matrix = random_matrix(&mut random, stored, 50, columns);
            let x = random_rows(&mut random, tokens * columns);
            let together = product(&kernels, &pass, &matrix, &x);
            for (row, x) in x.chunks_exact(columns).enumerate() {
                let alone = product(&kernels, &pass, &matrix, x);
                assert_eq!(bits(&alone), bits(&together[row * 50..(row + 1) * 50]), "{stored:?}");
            }
        }
    }
}

#[test]
fn parts_lie_side_by_side_and_biases_and_sums_are_added() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let pool = Pool::new(3).unwrap();
    let pass = pool.pass();
    for kernels in sets() {
        let matrices = [48, 20, 16].map(|rows| random_matrix(&mut random, Stored::Q8_0, rows, 64));
        let x = random_rows(&mut random, 5 * 64);
        let bias = random_rows(&mut random, 20);
        let input = input_of(&kernels, &pass, &x, 64);
        let parts = [
            Part { matrix: matrices[0].clone(), bias: None },
            Part { matrix: matrices[1].clone(), bias: Some(bias.clone()) },
            Part { matrix: matrices[2].clone(), bias: None },
        ];
        let mut output = vec![1.0; 5 * 84];
        kernels.multiply(&pass, &parts, &input, &mut output, true);
        let mut from = 0;
        for (index, matrix) in matrices.iter().enumerate() {
            let alone = product(&kernels, &pass, matrix, &x);
            for (token, row) in alone.chunks_exact(matrix.rows).enumerate() {
                for (at, value) in row.iter().enumerate() {
                    let value = if index == 1 { value + bias[at] } else { *value };
                    assert_eq!(output[token * 84 + from + at].to_bits(), (1.0 + value).to_bits());
                }
            }
            from += matrix.rows;
        }
    }
}

#[test]
fn a_gated_layer_is_its_two_products_gated() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let pool = Pool::new(2).unwrap();
    let pass = pool.pass();
    for kernels in sets() {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let both = random_matrix(&mut random, Stored::Q4_1, 128, 96);
            let x = random_rows(&mut random, 11 * 96);
            let input = input_of(&kernels, &pass, &x, 96);
            let mut gated = Input::default();
            kernels.gated(&pass, &Gate { gate: (&both, 0), up: (&both, 64), activation }, 64, &input, &mut gated);
            let product = product(&kernels, &pass, &both, &x);
            for (token, row) in product.chunks_exact(128).enumerate() {
                let (gate, up) = row.split_at(64);
                let mut expected = gate.to_vec();
                kernels.gate_row(activation, &mut expected, up);
                assert_eq!(bits(&expected), bits(&gated.floats[token * 64..(token + 1) * 64]));
                let again = input_of(&kernels, &pass, &expected, 64);
                assert_eq!(again.numbers, gated.numbers[token * 128..(token + 1) * 128]);
                assert_eq!(again.scales, gated.scales[token * 2..(token + 1) * 2]);
            }
        }
    }
}

#[test]
fn norms_and_gates_are_the_same_bits_everywhere_and_close_to_the_exact_ones() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    for width in [1, 16, 31, 64, 577] {
        let (x, weight) = (random_rows(&mut random, width), random_rows(&mut random, width));
        let results: Vec<[Vec<f32>; 3]> = sets()
            .iter()
            .map(|kernels| {
                let (mut normed, mut silu, mut gelu) = (x.clone(), x.clone(), x.clone());
                kernels.norm_row(&mut normed, &weight, 1e-5);
                kernels.gate_row(Activation::Silu, &mut silu, &weight);
                kernels.gate_row(Activation::GeluTanh, &mut gelu, &weight);
                [normed, silu, gelu]
            })
            .collect();
        assert!(results.iter().all(|result| result.iter().zip(&results[0]).all(|(a, b)| bits(a) == bits(b))));
        let mean_square = x.iter().map(|x| f64::from(x * x)).sum::<f64>() / width as f64;
        for (at, (&x, &weight)) in x.iter().zip(&weight).enumerate() {
            let (x, weight) = (f64::from(x), f64::from(weight));
            let tanh = ((2.0 / std::f64::consts::PI).sqrt() * x * (1.0 + 0.044715 * x * x)).tanh();
            let exact = [
                x / (mean_square + 1e-5).sqrt() * weight,
                x / (1.0 + (-x).exp()) * weight,
                0.5 * x * (1.0 + tanh) * weight,
            ];
            for (found, exact) in results[0].iter().zip(exact) {
                assert!((f64::from(found[at]) - exact).abs() < 3e-6, "{} instead of {exact}", found[at]);
            }
        }
    }
}

#[test]
fn large_magnitudes_are_held_to_what_f16_can_hold() {
    let from = [0.0, 1.0, -2.5, 65_504.0, 1e9, -1e9, 1e-8];
    for kernels in sets() {
        let mut to = [0; 7];
        kernels.round_to_f16(&from, &mut to);
        let back = to.map(|bits| half::f16::from_bits(bits).to_f32());
        assert_eq!(back, [0.0, 1.0, -2.5, 65_504.0, 65_504.0, -65_504.0, 0.0]);
    }
}

/// Pages of random keys and values, as f16.
struct Pages {
    keys: Vec<Vec<u16>>,
    values: Vec<Vec<u16>>,
}

impl Pages {
    fn random(random: &mut ChaCha8Rng, pages: usize, head_dim: usize) -> Pages {
        let mut page = |len: usize| -> Vec<u16> {
            (0..len).map(|_| half::f16::from_f32(random.random_range(-1.0f32..1.0)).to_bits()).collect()
        };
        Pages {
            keys: (0..pages).map(|_| page(head_dim * PAGE_TOKENS)).collect(),
            values: (0..pages).map(|_| page(value_width(head_dim) * PAGE_TOKENS)).collect(),
        }
    }

    fn page(&self, page: usize) -> PageHead<'_> {
        PageHead { keys: &self.keys[page], values: &self.values[page] }
    }

    /// In f64, by the definition.
    fn exact(&self, query: &[f32], scale: f32, seen: std::ops::Range<usize>) -> Vec<f64> {
        let head_dim = query.len();
        let float = |bits: u16| f64::from(half::f16::from_bits(bits).to_f32());
        let key = |at: usize, i: usize| float(self.keys[at / PAGE_TOKENS][i * PAGE_TOKENS + at % PAGE_TOKENS]);
        let value =
            |at: usize, i: usize| float(self.values[at / PAGE_TOKENS][at % PAGE_TOKENS * value_width(head_dim) + i]);
        let score = |at: usize| (0..head_dim).map(|i| f64::from(query[i] * scale) * key(at, i)).sum::<f64>();
        let weights: Vec<f64> = seen.clone().map(|at| score(at).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..head_dim).map(|i| seen.clone().zip(&weights).map(|(at, w)| w / total * value(at, i)).sum()).collect()
    }
}

#[test]
fn attention_is_the_same_bits_however_it_is_cut_and_close_to_the_exact_one() {
    let mut random = ChaCha8Rng::seed_from_u64(10);
    let pool = Pool::new(2).unwrap();
    let pass = pool.pass();
    for (heads, kv_heads, head_dim, start, tokens, window) in
        [(9, 3, 64, 0, 70, None), (4, 1, 40, 100, 21, Some(30)), (5, 1, 16, 63, 2, Some(1)), (14, 2, 96, 150, 9, None)]
    {
        let shape = Shape { heads, kv_heads, head_dim, scale: 0.3, window };
        let stored: Vec<Pages> = (0..kv_heads).map(|_| Pages::random(&mut random, 4, head_dim)).collect();
        let stride = heads * head_dim + 8;
        let rows = random_rows(&mut random, tokens * stride);
        let attend = |kernels: &Kernels, rows: &[f32], start: usize| {
            let mut to = Input::default();
            kernels.attend(&pass, shape, (rows, stride), start, |head, page| stored[head].page(page), &mut to);
            to.floats
        };
        let whole = attend(&sets()[0], &rows, start);
        for kernels in sets() {
            assert_eq!(bits(&whole), bits(&attend(&kernels, &rows, start)));
            let alone: Vec<f32> = (0..tokens)
                .flat_map(|token| attend(&kernels, &rows[token * stride..(token + 1) * stride], start + token))
                .collect();
            assert_eq!(bits(&whole), bits(&alone), "{shape:?}");
        }
        for token in 0..tokens {
            for head in 0..heads {
                let query = &rows[token * stride + head * head_dim..][..head_dim];
                let end = start + token + 1;
                let seen = window.map_or(0, |window| end.saturating_sub(window))..end;
                let exact = stored[head / (heads / kv_heads)].exact(query, shape.scale, seen);
                let found = &whole[(token * heads + head) * head_dim..][..head_dim];
                for (found, exact) in found.iter().zip(exact) {
                    assert!((f64::from(*found) - exact).abs() < 1e-5, "{shape:?}: {found} instead of {exact}");
                }
            }
        }
    }
}
