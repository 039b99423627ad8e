//! Convolutions of pictures whose channels lie in blocks, over plain slices: frames, taps, and the order of the work.
//!
//! A picture is `[blocks, y, x, 16]`; the lanes beyond the last channel hold any finite numbers and are never read by a
//! sum over channels. Padding and strides are brought into one form, places next to each other, by copying the picture
//! into a frame of zeros, one part per stride phase; a depthwise convolution leaves out the taps outside instead.

use std::ops::Range;

use super::kernel::{self, Cell, Dense, Depthwise, LANES, Run, Tap};
use crate::rewrite::direct::{After, Axis, Geometry, Isa};
use crate::rewrite::share::share;

/// Where the input's numbers lie.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pictures<'a> {
    /// `[batch, channels, y, x]`.
    Planes(&'a [f32]),
    /// `[batch, blocks, y, x]` of cells.
    Blocks(&'a [Cell]),
}

/// A convolution's constants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'a> {
    /// Groups of channels, each of whole blocks; 1 for all channels together.
    pub(super) groups: usize,
    /// What [`pack`] or [`pack_depthwise`] made.
    pub(super) packed: &'a [Cell],
    /// By block of output channels.
    pub(super) bias: &'a [Cell],
    /// With the slopes of all blocks.
    pub(super) after: After<'a>,
}

/// Brings weights `[outputs, inputs of a group, taps]` into the order of the loops: by block of outputs, then block of
/// inputs, then tap, then input; a cell of outputs each. Lanes beyond the last output are 0.
pub(super) fn pack(weights: &[f32], outputs: usize, inputs: usize, taps: usize) -> Vec<Cell> {
    let mut packed = Vec::with_capacity(outputs.div_ceil(LANES) * inputs * taps);
    for block in (0..outputs).step_by(LANES) {
        for first in (0..inputs).step_by(LANES) {
            for tap in 0..taps {
                for input in first..inputs.min(first + LANES) {
                    packed.push(cell(outputs - block, |lane| weights[((block + lane) * inputs + input) * taps + tap]));
                }
            }
        }
    }
    packed
}

/// Brings weights `[channels, taps]` into the order of the loops: by block, then tap.
pub(super) fn pack_depthwise(weights: &[f32], channels: usize, taps: usize) -> Vec<Cell> {
    let blocks = (0..channels).step_by(LANES).flat_map(|block| (0..taps).map(move |tap| (block, tap)));
    blocks.map(|(block, tap)| cell(channels - block, |lane| weights[(block + lane) * taps + tap])).collect()
}

/// Numbers by channel as cells; 0 beyond the last.
pub(super) fn pack_channels(numbers: &[f32]) -> Vec<Cell> {
    numbers.chunks(LANES).map(|chunk| cell(chunk.len(), |lane| chunk[lane])).collect()
}

fn cell(count: usize, number: impl Fn(usize) -> f32) -> Cell {
    std::array::from_fn(|lane| if lane < count { number(lane) } else { 0.0 })
}

/// Convolves `input` into `output`, `[batch, blocks, y, x]`, adding `residual`, which lies as the output does.
///
/// # Panics
/// When a slice is shorter than `geometry` says.
pub(super) fn dense(
    isa: Isa,
    geometry: &Geometry,
    weights: Weights<'_>,
    input: Pictures<'_>,
    residual: Option<&[Cell]>,
    output: &mut [Cell],
) {
    let plane = geometry.y.output * geometry.x.output;
    let answer = geometry.outputs.div_ceil(LANES) * plane;
    if answer == 0 {
        return;
    }
    let per_block = plane * LANES * weights.packed.len() / geometry.outputs.div_ceil(LANES);
    let mut frame = Frame::new(geometry, input);
    let is_plain = matches!(input, Pictures::Blocks(_)) && geometry.y.is_plain() && geometry.x.is_plain();
    for (image, output) in output.chunks_exact_mut(answer).take(geometry.batch).enumerate() {
        let residual = residual.map(|residual| &residual[image * answer..][..answer]);
        let sums = |source: Source<'_>, output: &mut [Cell]| {
            share(output, plane, per_block, |first, output| {
                let blocks = first..first + output.len() / plane;
                Work { isa, geometry, weights, residual, blocks }.picture(source, output);
            });
        };
        match input {
            Pictures::Blocks(cells) if is_plain => {
                let picture = geometry.inputs.div_ceil(LANES) * geometry.y.input * geometry.x.input;
                let source = Source {
                    numbers: cells[image * picture..][..picture].as_flattened(),
                    cell: LANES,
                    pitch: geometry.x.input,
                    runs: &runs(geometry, LANES, |block, y, x| (block * geometry.y.input + y) * geometry.x.input + x),
                };
                sums(source, output);
            }
            Pictures::Blocks(_) | Pictures::Planes(_) => {
                frame.fill(geometry, input, image);
                let runs = runs(geometry, frame.cell, |block, y, x| place_of_tap(geometry, block, y, x));
                let source =
                    Source { numbers: &frame.numbers, cell: frame.cell, pitch: geometry.x.phase(), runs: &runs };
                sums(source, output);
            }
        }
    }
}

/// The taps of all input channels; `place` says where a block's tap lies, in cells.
fn runs(geometry: &Geometry, cell: usize, place: impl Fn(usize, usize, usize) -> usize) -> Vec<Run> {
    let (y, x) = (geometry.y, geometry.x);
    let mut runs = Vec::with_capacity(geometry.inputs.div_ceil(cell) * y.kernel * x.kernel);
    for first in (0..geometry.inputs).step_by(cell) {
        for ky in (0..y.kernel).map(|tap| tap * y.dilation) {
            for kx in (0..x.kernel).map(|tap| tap * x.dilation) {
                let at = place(first / cell, ky, kx) * cell;
                runs.push(Run { at, channels: cell.min(geometry.inputs - first) });
            }
        }
    }
    runs
}

/// What the loops read for one picture.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    numbers: &'a [f32],
    cell: usize,
    /// Places from one row to the next.
    pitch: usize,
    runs: &'a [Run],
}

/// A convolution under way.
#[derive(Debug, Clone)]
struct Work<'a> {
    isa: Isa,
    geometry: &'a Geometry,
    weights: Weights<'a>,
    residual: Option<&'a [Cell]>,
    /// Of output channels: those that are done here, one after another.
    blocks: Range<usize>,
}

/// Numbers of the input that are done for all outputs before the next ones: they stay in a second-level cache.
const NEAR: usize = 1 << 16;

/// How many of `len` places are done together: whole tiles of `most` places, each of which needs `per_place` numbers.
pub(super) fn part_len(per_place: usize, most: usize, len: usize) -> usize {
    (NEAR / per_place).max(1).next_multiple_of(most).min(len)
}

impl Work<'_> {
    fn picture(&self, source: Source<'_>, output: &mut [Cell]) {
        let (y, x) = (self.geometry.y, self.geometry.x);
        let plane = y.output * x.output;
        let (rows, len) = if source.pitch == x.output { (1, plane) } else { (y.output, x.output) };
        let per_place = source.runs.len().div_ceil(y.kernel * x.kernel) * source.cell;
        let most = kernel::places(self.isa);
        // One long row is cut; of short ones some are done together.
        let long = part_len(per_place, most, len);
        let together = (NEAR / (per_place * source.pitch)).clamp(1, rows);
        for first in (0..rows).step_by(together) {
            for from in (0..len).step_by(long) {
                let part = first..rows.min(first + together);
                self.part(source, part, from..len.min(from + long), output);
            }
        }
    }

    /// All output channels of the places `places` of the rows `rows`.
    fn part(&self, source: Source<'_>, rows: Range<usize>, places: Range<usize>, output: &mut [Cell]) {
        let plane = self.geometry.y.output * self.geometry.x.output;
        let groups = self.weights.groups;
        let in_group = self.geometry.outputs.div_ceil(LANES) / groups;
        let taps: usize = source.runs.iter().map(|run| run.channels).sum::<usize>() / groups;
        let runs = source.runs.len() / groups;
        let tiles = places.len().div_ceil(kernel::places(self.isa)).max(1);
        let mut block = self.blocks.start;
        while block < self.blocks.end {
            let group = block / in_group;
            let end = self.blocks.end.min((group + 1) * in_group);
            let count = kernel::blocks(self.isa).min(end - block);
            for row in rows.clone() {
                for tile in 0..tiles {
                    let from = places.start + tile * places.len() / tiles;
                    let to = places.start + (tile + 1) * places.len() / tiles;
                    let place = row * self.geometry.x.output + from;
                    let job = Dense {
                        input: source.numbers,
                        cell: source.cell,
                        at: (row * source.pitch + from) * source.cell,
                        runs: &source.runs[group * runs..][..runs],
                        places: to - from,
                        weights: &self.weights.packed[block * taps..][..count * taps],
                        bias: &self.weights.bias[block..][..count],
                        after: self.weights.after.of(block * LANES, count * LANES),
                        residual: self.residual.map(|residual| &residual[block * plane + place..]),
                    };
                    kernel::dense(self.isa, &job, &mut output[(block - self.blocks.start) * plane + place..], plane);
                }
            }
            block += count;
        }
    }
}

/// A picture among zeros, `[blocks, phases of y, phases of x, y, x]` of cells.
#[derive(Debug)]
struct Frame {
    /// Numbers of one place.
    cell: usize,
    numbers: Vec<f32>,
}

impl Frame {
    fn new(geometry: &Geometry, input: Pictures<'_>) -> Self {
        /// Pictures as they come from a camera, perhaps with a mask, have so many channels at most.
        const FEW: usize = 4;
        let cell = if matches!(input, Pictures::Planes(_)) && geometry.inputs <= FEW { FEW } else { LANES };
        Self { cell, numbers: Vec::new() }
    }

    fn fill(&mut self, geometry: &Geometry, input: Pictures<'_>, image: usize) {
        let (y, x) = (geometry.y, geometry.x);
        let (cell, blocks) = (self.cell, geometry.inputs.div_ceil(self.cell));
        let of_block = y.stride * x.stride * y.phase() * x.phase() * cell;
        self.numbers.resize(blocks * of_block, 0.0);
        let fill_block = |block: usize, frame: &mut [f32]| {
            for row in (0..y.input).filter(|row| is_read(&y, row + y.pad_before)) {
                for shift in (0..x.stride.min(x.input)).filter(|shift| is_read(&x, shift + x.pad_before)) {
                    // The places of one phase lie next to each other.
                    let at = place_of_tap(geometry, 0, row + y.pad_before, shift + x.pad_before) * cell;
                    let count = (x.input - shift).div_ceil(x.stride);
                    let places = &mut frame[at..at + count * cell];
                    match input {
                        Pictures::Blocks(cells) => {
                            let first = ((image * blocks + block) * y.input + row) * x.input + shift;
                            let from = cells[first..].iter().step_by(x.stride);
                            places.as_chunks_mut::<LANES>().0.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                        }
                        Pictures::Planes(numbers) => {
                            let channels = cell.min(geometry.inputs - block * cell);
                            for lane in 0..channels {
                                let plane = image * geometry.inputs + block * cell + lane;
                                let from = &numbers[(plane * y.input + row) * x.input..][..x.input];
                                let to = places[lane..].iter_mut().step_by(cell);
                                to.zip(from[shift..].iter().step_by(x.stride)).for_each(|(to, from)| *to = *from);
                            }
                        }
                    }
                }
            }
        };
        // A number that is copied takes about as long as a product.
        share(&mut self.numbers, of_block, of_block, |first, frames| {
            for (block, frame) in (first..).zip(frames.chunks_exact_mut(of_block.max(1))) {
                fill_block(block, frame);
            }
        });
    }
}

/// Where the tap `y`, `x` of the first output place lies in a frame, in cells.
fn place_of_tap(geometry: &Geometry, block: usize, y: usize, x: usize) -> usize {
    let (vertical, horizontal) = (geometry.y, geometry.x);
    let part = (block * vertical.stride + y % vertical.stride) * horizontal.stride + x % horizontal.stride;
    (part * vertical.phase() + y / vertical.stride) * horizontal.phase() + x / horizontal.stride
}

/// Whether any tap reads the phase that `place` of the frame is in.
fn is_read(axis: &Axis, place: usize) -> bool {
    (0..axis.kernel).any(|tap| tap * axis.dilation % axis.stride == place % axis.stride)
}

/// Convolves each channel of `input` by itself into `output`, both `[batch, blocks, y, x]`.
///
/// # Panics
/// When a slice is shorter than `geometry` says.
pub(super) fn depthwise(isa: Isa, geometry: &Geometry, weights: Weights<'_>, input: &[Cell], output: &mut [Cell]) {
    let (y, x) = (geometry.y, geometry.x);
    let (picture, plane) = (y.input * x.input, y.output * x.output);
    if plane == 0 {
        return;
    }
    let taps = y.kernel * x.kernel;
    let (spans, taps_of_spans) = spans(geometry, kernel::places(isa));
    let blocks = geometry.outputs.div_ceil(LANES);
    let blocks_of_all = geometry.batch * blocks;
    share(&mut output[..blocks_of_all * plane], plane, 4 * plane * taps * LANES, |first, output| {
        for (index, output) in (first..).zip(output.chunks_exact_mut(plane)) {
            let block = index % blocks;
            let input = &input[index * picture..][..picture];
            for span in &spans {
                let job = Depthwise {
                    input,
                    stride: if span.places == 1 { 1 } else { x.stride },
                    taps: &taps_of_spans[span.taps.clone()],
                    places: span.places,
                    weights: &weights.packed[block * taps..][..taps],
                    bias: &weights.bias[block],
                    after: weights.after.of(block * LANES, LANES),
                };
                kernel::depthwise(isa, &job, &mut output[span.at..]);
            }
        }
    });
}

/// Output places next to each other that see the same taps.
#[derive(Debug)]
struct Span {
    at: usize,
    places: usize,
    /// Which of the taps.
    taps: Range<usize>,
}

/// The spans of a plane, and their taps one after another.
fn spans(geometry: &Geometry, most: usize) -> (Vec<Span>, Vec<Tap>) {
    let (y, x) = (geometry.y, geometry.x);
    let inside = |axis: &Axis, output: usize, tap: usize| {
        (output * axis.stride + tap * axis.dilation).checked_sub(axis.pad_before).filter(|place| *place < axis.input)
    };
    // From the first place on that sees all taps of a row, and before the first that does not any more.
    let sees_all = |output: &usize| [0, x.kernel - 1].iter().all(|&tap| inside(&x, *output, tap).is_some());
    let from = (0..x.output).find(sees_all).unwrap_or(x.output);
    let to = (from..x.output).find(|output| !sees_all(output)).unwrap_or(x.output);
    // Longer steps than the loops know are done place by place.
    let most = if x.stride <= 2 { most } else { 1 };
    let tiles = (to - from).div_ceil(most);
    let middle = (0..tiles).map(|tile| {
        let (first, last) = (from + tile * (to - from) / tiles, from + (tile + 1) * (to - from) / tiles);
        (first, last - first)
    });
    let columns: Vec<(usize, usize)> =
        (0..from).map(|column| (column, 1)).chain(middle).chain((to..x.output).map(|column| (column, 1))).collect();
    let count = y.output * columns.len();
    let (mut spans, mut taps) = (Vec::with_capacity(count), Vec::with_capacity(count * y.kernel * x.kernel));
    for row in 0..y.output {
        for &(column, places) in &columns {
            let first = taps.len();
            for ky in 0..y.kernel {
                for kx in 0..x.kernel {
                    if let (Some(top), Some(left)) = (inside(&y, row, ky), inside(&x, column, kx)) {
                        taps.push(Tap { at: top * x.input + left, weight: ky * x.kernel + kx });
                    }
                }
            }
            spans.push(Span { at: row * x.output + column, places, taps: first..taps.len() });
        }
    }
    (spans, taps)
}

/// The largest number in each window of each channel, `input` and `output` being `[planes, y, x]` of cells; NaN counts as
/// smaller than any, and a window of nothing but NaN or padding gives -∞.
pub(super) fn pool(y: Axis, x: Axis, input: &[Cell], output: &mut [Cell]) {
    let (picture, plane) = (y.input * x.input, y.output * x.output);
    if plane == 0 {
        return;
    }
    let seen = |axis: &Axis, output: usize| {
        let first = (output * axis.stride).saturating_sub(axis.pad_before).min(axis.input);
        first..(output * axis.stride + axis.kernel).saturating_sub(axis.pad_before).min(axis.input)
    };
    for (index, output) in output.chunks_exact_mut(plane).enumerate() {
        let input = &input[index * picture..][..picture];
        for (row, output) in output.chunks_exact_mut(x.output).enumerate() {
            let rows = seen(&y, row);
            for (column, output) in output.iter_mut().enumerate() {
                let columns = seen(&x, column);
                let mut most = [f32::NEG_INFINITY; LANES];
                for row in rows.clone() {
                    for cell in &input[row * x.input..][columns.clone()] {
                        for (most, number) in most.iter_mut().zip(cell) {
                            *most = if *number > *most { *number } else { *most };
                        }
                    }
                }
                *output = most;
            }
        }
    }
}
