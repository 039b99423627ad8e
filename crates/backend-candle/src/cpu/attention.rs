//! Attention within each of several rows of tokens: softmax(q·kᵀ/√d)·v, head by head (Vaswani and others: Attention Is All
//! You Need, 2017).

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::isa::{ISA, Isa, Step, Work, on};
use super::math::{exp, max, sum};
use super::product::TILE;

/// What every token gives to the tokens of its own range, for each token: q, k and v of all heads stand one after another in
/// a row of `qkv`, three times as wide as the result.
pub(crate) fn attention(qkv: &[f32], width: usize, heads: usize, ranges: &[Range<usize>]) -> Vec<f32> {
    with(*ISA, qkv, width, heads, ranges)
}

pub(super) fn with(isa: Isa, qkv: &[f32], width: usize, heads: usize, ranges: &[Range<usize>]) -> Vec<f32> {
    let (tokens, size) = (qkv.len() / (3 * width), width / heads);
    // By heads first, so that each is a piece of its own that one thread fills.
    let mut by_head = vec![0.0; tokens * width];
    let one = |(head, out): (usize, &mut [f32])| on(isa, Head { qkv, width, size, head, ranges, out });
    if rayon::current_num_threads() > 1 {
        by_head.par_chunks_mut(tokens * size).enumerate().for_each(one);
    } else {
        by_head.chunks_mut(tokens * size).enumerate().for_each(one);
    }
    let mut out = vec![0.0; tokens * width];
    for (head, numbers) in by_head.chunks(tokens * size).enumerate() {
        for (row, numbers) in out.chunks_exact_mut(width).zip(numbers.chunks_exact(size)) {
            row[head * size..(head + 1) * size].copy_from_slice(numbers);
        }
    }
    out
}

/// One head of all ranges.
struct Head<'a> {
    qkv: &'a [f32],
    width: usize,
    size: usize,
    head: usize,
    ranges: &'a [Range<usize>],
    out: &'a mut [f32],
}

#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    scores: Vec<f32>,
    shares: Vec<f32>,
}

impl Work for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Step>(self) {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        // Taken out rather than borrowed: what runs inside a closure would not be compiled with the caller's instructions.
        let mut scratch = SCRATCH.take();
        for range in self.ranges {
            let out = &mut self.out[range.start * self.size..range.end * self.size];
            one::<S>(self.qkv, (self.width, self.size, self.head), range, &mut scratch, out);
        }
        SCRATCH.set(scratch);
    }
}

#[inline(always)]
fn one<S: Step>(
    qkv: &[f32],
    (width, size, head): (usize, usize, usize),
    range: &Range<usize>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let length = range.len();
    let row = |token: usize, part: usize| {
        let start = (range.start + token) * 3 * width + part * width + head * size;
        &qkv[start..start + size]
    };
    let panels = length.div_ceil(S::NARROW);
    // kᵀ in panels of tokens.
    scratch.keys.clear();
    scratch.keys.resize(panels * S::NARROW * size, 0.0);
    for token in 0..length {
        let place = token / S::NARROW * S::NARROW * size + token % S::NARROW;
        for (place, x) in scratch.keys[place..].iter_mut().step_by(S::NARROW).zip(row(token, 1)) {
            *place = *x;
        }
    }
    // v in panels of its own columns.
    let columns = size.div_ceil(S::NARROW);
    scratch.values.clear();
    scratch.values.resize(columns * S::NARROW * length, 0.0);
    for token in 0..length {
        for (panel, numbers) in row(token, 2).chunks(S::NARROW).enumerate() {
            let place = (panel * length + token) * S::NARROW;
            scratch.values[place..place + numbers.len()].copy_from_slice(numbers);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a head's size is far below 2^24")]
    let scale = 1.0 / (size as f32).sqrt();
    scratch.queries.resize(S::ROWS * size, 0.0);
    scratch.scores.resize(S::ROWS * panels * S::NARROW, 0.0);
    scratch.shares.resize(S::ROWS * length, 0.0);
    let mut tile = [0.0_f32; TILE];
    for first in (0..length).step_by(S::ROWS) {
        let count = S::ROWS.min(length - first);
        for r in 0..count {
            for (place, x) in scratch.queries[r..].iter_mut().step_by(count).zip(row(first + r, 0)) {
                *place = x * scale;
            }
        }
        let stride = panels * S::NARROW;
        for (panel, keys) in scratch.keys.chunks_exact(S::NARROW * size).enumerate() {
            S::tile(size, count, S::NARROW, &scratch.queries, keys, &mut tile);
            for (r, sums) in tile.chunks_exact(S::NARROW).take(count).enumerate() {
                let place = r * stride + panel * S::NARROW;
                scratch.scores[place..place + S::NARROW].copy_from_slice(sums);
            }
        }
        let mut totals = [0.0_f32; 8];
        for (r, total) in totals.iter_mut().enumerate().take(count) {
            let scores = &mut scratch.scores[r * stride..r * stride + length];
            let most = max(scores);
            for score in &mut *scores {
                *score = exp(*score - most);
            }
            *total = sum(scores, |x| x);
            for (place, x) in scratch.shares[r..].iter_mut().step_by(count).zip(&*scores) {
                *place = *x;
            }
        }
        for (panel, values) in scratch.values.chunks_exact(S::NARROW * length).enumerate() {
            S::tile(length, count, S::NARROW, &scratch.shares, values, &mut tile);
            let start = panel * S::NARROW;
            let wide = S::NARROW.min(size - start);
            for (r, sums) in tile.chunks_exact(S::NARROW).take(count).enumerate() {
                let factor = 1.0 / totals[r];
                let place = (first + r) * size + start;
                for (out, sum) in out[place..place + wide].iter_mut().zip(sums) {
                    *out = sum * factor;
                }
            }
        }
    }
}
