//! How fast this machine reads its memory, which bounds how fast a model decodes.

use std::time::Instant;

/// Reads of a buffer; the fastest counts.
const READS: usize = 7;

/// Bytes a second that `threads` threads read together of a buffer this large.
pub fn read_rate(bytes: usize, threads: usize) -> f64 {
    let numbers: Vec<u64> = (0..bytes as u64 / 8).collect();
    let share = numbers.len().div_ceil(threads);
    let read = || {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for part in numbers.chunks(share) {
                scope.spawn(move || std::hint::black_box(sum(part)));
            }
        });
        bytes as f64 / begun.elapsed().as_secs_f64()
    };
    (0..READS).map(|_| read()).fold(0.0, f64::max)
}

/// Independent sums, so that the memory and not the addition is waited for.
fn sum(numbers: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in numbers.chunks_exact(sums.len()) {
        sums.iter_mut().zip(chunk).for_each(|(sum, number)| *sum ^= number);
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}
