//! Two-dimensional convolution without unfolding its input into a matrix, over plain slices.
//!
//! A kernel's tap sees the input shifted: with the picture in rows of a fixed pitch, `output[y][x]` is a sum over taps of
//! `weight * input[offset(tap) + y * pitch + x]`. So a run of output places next to each other needs, per tap, one run of
//! input and one weight per channel, which [`kernel`] does in registers. Padding and strides are brought into that form by
//! copying the picture into a frame of zeros, one part per stride phase. What differs is which places count as
//! neighbours ([`Layout`]).

mod kernel;
#[cfg(test)]
mod tests;

use kernel::{Job, LANES};

pub(super) use kernel::{After, Isa, Kind};

/// The sizes of one convolution in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) pad_before: usize,
}

impl Axis {
    /// Input places that the outputs see, padding included.
    pub(super) fn seen(&self) -> usize {
        (self.output.saturating_sub(1)) * self.stride + (self.kernel - 1) * self.dilation + 1
    }

    /// Places per stride phase of the frame.
    pub(super) fn phase(&self) -> usize {
        self.seen().max(self.pad_before + self.input).div_ceil(self.stride)
    }

    /// Whether it can be read where it lies, without a frame.
    pub(super) fn is_plain(&self) -> bool {
        self.stride == 1 && self.pad_before == 0 && self.seen() <= self.input
    }
}

/// The sizes of one convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) y: Axis,
    pub(super) x: Axis,
}

/// The weights of one convolution as the loops want them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'a> {
    /// What [`pack`] made.
    pub(super) packed: &'a [f32],
    /// `[outputs]`.
    pub(super) bias: &'a [f32],
    /// What follows, with the slopes of all outputs.
    pub(super) after: After<'a>,
}

/// The output channels in groups that are done together: the first of each and how many.
fn tiles(outputs: usize, isa: Isa) -> impl Iterator<Item = (usize, usize)> {
    let count = outputs.div_ceil(isa.channels());
    (0..count).map(move |tile| {
        let (from, to) = (tile * outputs / count, (tile + 1) * outputs / count);
        (from, to - from)
    })
}

/// Brings weights `[outputs, taps]` into the order of the loops: by group of channels, then tap, then channel.
pub(super) fn pack(weights: &[f32], outputs: usize) -> Vec<f32> {
    pack_for(weights, outputs, Isa::best())
}

fn pack_for(weights: &[f32], outputs: usize, isa: Isa) -> Vec<f32> {
    let taps = weights.len().checked_div(outputs).unwrap_or(0);
    let mut packed = Vec::with_capacity(weights.len());
    for (first, channels) in tiles(outputs, isa) {
        for tap in 0..taps {
            packed.extend((first..first + channels).map(|channel| weights[channel * taps + tap]));
        }
    }
    packed
}

/// What [`pack`] was given.
pub(super) fn unpack(packed: &[f32], outputs: usize) -> Vec<f32> {
    unpack_for(packed, outputs, Isa::best())
}

fn unpack_for(packed: &[f32], outputs: usize, isa: Isa) -> Vec<f32> {
    let taps = packed.len().checked_div(outputs).unwrap_or(0);
    let mut weights = vec![0.0; packed.len()];
    let mut packed = packed.iter();
    for (first, channels) in tiles(outputs, isa) {
        for tap in 0..taps {
            for (channel, number) in (first..first + channels).zip(&mut packed) {
                weights[channel * taps + tap] = *number;
            }
        }
    }
    weights
}

/// Which output places are neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Those of one row: for wide pictures.
    Rows,
    /// Those of a whole picture in rows of the input's pitch; what comes between the rows is computed and thrown away.
    Flat,
    /// Those of several pictures one after the other, their inputs having been unfolded for it, one row per tap: for few
    /// small pictures.
    Gathered,
    /// The same place of [`LANES`] pictures, which are interleaved for it: for many small pictures.
    Lanes,
}

/// Rows this wide lose little at their end.
const WIDE: usize = 40;
/// Per cent of the places that count: the most that the flat layout may compute.
const ENOUGH: usize = 117;
/// So many pictures fill the lanes well enough.
const FEW_LANES: usize = 10;

/// Numbers that are unfolded at once, where one picture has fewer: 256 KiB, which a second-level cache holds.
const UNFOLDED: usize = 1 << 16;

impl Geometry {
    /// Weights per output channel.
    fn taps(&self) -> usize {
        self.inputs * self.y.kernel * self.x.kernel
    }

    /// The layout for `left` pictures.
    fn layout(&self, left: usize) -> Layout {
        let pitch = if self.is_plain() { self.x.input } else { self.x.phase() };
        let flat = ((self.y.output - 1) * pitch + self.x.output).next_multiple_of(LANES);
        let plane = self.y.output * self.x.output;
        let together = self.unfolded_at_once(left);
        if self.x.output >= WIDE || (pitch == self.x.output && plane >= LANES) {
            Layout::Rows
        } else if flat * 100 <= plane * ENOUGH {
            Layout::Flat
        } else if left >= FEW_LANES {
            Layout::Lanes
        } else if (together * plane).div_ceil(LANES) < together * flat / LANES {
            Layout::Gathered
        } else {
            Layout::Flat
        }
    }

    /// How many of `left` pictures are unfolded together.
    fn unfolded_at_once(&self, left: usize) -> usize {
        (UNFOLDED / (self.taps() * self.y.output * self.x.output).max(1)).clamp(1, left.max(1))
    }

    fn is_plain(&self) -> bool {
        self.y.is_plain() && self.x.is_plain()
    }
}

/// Convolves `input` `[batch, inputs, y, x]` into `output` `[batch, outputs, y, x]`.
///
/// # Panics
/// When a slice is shorter than `geometry` says.
pub(super) fn run(geometry: &Geometry, input: &[f32], weights: Weights<'_>, output: &mut [f32]) {
    run_on(Isa::best(), geometry, input, weights, output);
}

/// As [`run`], for `groups` groups of channels, each by itself.
///
/// # Panics
/// When a slice is shorter than `geometry` says.
pub(super) fn run_groups(groups: usize, geometry: &Geometry, input: &[f32], weights: Weights<'_>, output: &mut [f32]) {
    if groups == 1 {
        return run(geometry, input, weights, output);
    }
    let (inputs, outputs) = (geometry.inputs / groups, geometry.outputs / groups);
    let (picture, answer) =
        (inputs * geometry.y.input * geometry.x.input, outputs * geometry.y.output * geometry.x.output);
    if answer == 0 {
        return;
    }
    let of_group = Geometry { batch: 1, inputs, outputs, ..*geometry };
    for (index, output) in output.chunks_exact_mut(answer).take(geometry.batch * groups).enumerate() {
        let group = index % groups;
        let packed = weights.packed.len() / groups;
        let weights = Weights {
            packed: &weights.packed[group * packed..][..packed],
            bias: &weights.bias[group * outputs..][..outputs],
            after: weights.after.of(group * outputs, outputs),
        };
        run(&of_group, &input[index * picture..][..picture], weights, output);
    }
}

fn run_on(isa: Isa, geometry: &Geometry, input: &[f32], weights: Weights<'_>, output: &mut [f32]) {
    let picture = geometry.inputs * geometry.y.input * geometry.x.input;
    let answer = geometry.outputs * geometry.y.output * geometry.x.output;
    if answer == 0 {
        return;
    }
    let mut work = Work::new(isa, geometry, weights);
    let mut done = 0;
    let mut before = None;
    while done < geometry.batch {
        let layout = geometry.layout(geometry.batch - done);
        if before.replace(layout).is_some_and(|before| before != layout) {
            work.frame.clear(); // zeros are elsewhere now
        }
        let count = match layout {
            Layout::Rows | Layout::Flat => 1,
            Layout::Gathered => geometry.unfolded_at_once(geometry.batch - done),
            Layout::Lanes => LANES,
        };
        let count = count.min(geometry.batch - done);
        let input = &input[done * picture..(done + count) * picture];
        let output = &mut output[done * answer..(done + count) * answer];
        match layout {
            Layout::Rows => work.rows(input, output),
            Layout::Flat => work.flat(input, output),
            Layout::Gathered => work.gathered(input, output, count),
            Layout::Lanes => work.lanes(input, output, count),
        }
        done += count;
    }
}

/// A convolution under way, with memory that its pictures use one after the other.
struct Work<'a> {
    isa: Isa,
    geometry: &'a Geometry,
    weights: Weights<'a>,
    /// Offsets of the taps in the frame, and in the picture itself where no frame is needed.
    framed: Vec<usize>,
    plain: Vec<usize>,
    frame: Vec<f32>,
    unfolded: Vec<f32>,
    answers: Vec<f32>,
}

impl<'a> Work<'a> {
    fn new(isa: Isa, geometry: &'a Geometry, weights: Weights<'a>) -> Self {
        let (y, x) = (geometry.y, geometry.x);
        let phase = y.phase() * x.phase();
        let mut framed = Vec::with_capacity(geometry.taps());
        let mut plain = Vec::with_capacity(framed.capacity());
        for channel in 0..geometry.inputs {
            for ky in (0..y.kernel).map(|tap| tap * y.dilation) {
                for kx in (0..x.kernel).map(|tap| tap * x.dilation) {
                    let part = (channel * y.stride + ky % y.stride) * x.stride + kx % x.stride;
                    framed.push(part * phase + ky / y.stride * x.phase() + kx / x.stride);
                    plain.push((channel * y.input + ky) * x.input + kx);
                }
            }
        }
        Self { isa, geometry, weights, framed, plain, frame: Vec::new(), unfolded: Vec::new(), answers: Vec::new() }
    }

    /// Numbers of a frame around one picture.
    fn frame_len(&self) -> usize {
        let (y, x) = (self.geometry.y, self.geometry.x);
        self.geometry.inputs * y.stride * x.stride * y.phase() * x.phase()
    }

    /// Where the row of the frame begins that takes the picture's row `row` of `channel`, in the first phase of x.
    fn place(&self, channel: usize, row: usize) -> usize {
        let (y, x) = (self.geometry.y, self.geometry.x);
        let row = row + y.pad_before;
        let part = (channel * y.stride + row % y.stride) * x.stride;
        part * y.phase() * x.phase() + row / y.stride * x.phase()
    }

    /// What the loops read for `picture`: numbers, offsets of the taps, and the pitch of rows.
    fn source<'b>(&'b self, picture: &'b [f32], is_plain: bool) -> (&'b [f32], &'b [usize], usize) {
        if is_plain {
            (picture, &self.plain, self.geometry.x.input)
        } else {
            (&self.frame, &self.framed, self.geometry.x.phase())
        }
    }

    /// Copies one picture into the frame, which a vector of zeros follows.
    fn fill(&mut self, picture: &[f32]) {
        let (y, x) = (self.geometry.y, self.geometry.x);
        self.frame.resize(self.frame_len() + LANES, 0.0);
        let phase = y.phase() * x.phase();
        for (index, row) in picture.chunks_exact(x.input).enumerate() {
            let place = self.place(index / y.input, index % y.input);
            if x.stride == 1 {
                self.frame[place + x.pad_before..][..x.input].copy_from_slice(row);
                continue;
            }
            for shift in 0..x.stride.min(x.input) {
                let column = shift + x.pad_before;
                let places = &mut self.frame[place + column % x.stride * phase + column / x.stride..];
                for (place, number) in places.iter_mut().zip(row[shift..].iter().step_by(x.stride)) {
                    *place = *number;
                }
            }
        }
    }

    /// Runs one group of channels over a run of places.
    fn tile(&self, (first, channels): (usize, usize), source: Source<'_>, output: &mut [f32], stride: usize) {
        let taps = source.taps.len();
        let job = Job {
            input: source.input,
            taps: source.taps,
            at: source.at,
            len: source.len,
            weights: &self.weights.packed[first * taps..(first + channels) * taps],
            bias: &self.weights.bias[first..first + channels],
            after: self.weights.after.of(first, channels),
        };
        self.isa.run(&job, output, stride);
    }

    fn rows(&mut self, picture: &[f32], output: &mut [f32]) {
        let (y, x) = (self.geometry.y, self.geometry.x);
        let plane = y.output * x.output;
        let is_plain = self.geometry.is_plain();
        if !is_plain {
            self.fill(picture);
        }
        let (input, taps, pitch) = self.source(picture, is_plain);
        // Rows without a gap between them are one long row.
        let (count, len) = if pitch == x.output { (1, plane) } else { (y.output, x.output) };
        for row in 0..count {
            for tile in tiles(self.geometry.outputs, self.isa) {
                let source = Source { input, taps, at: row * pitch, len };
                self.tile(tile, source, &mut output[tile.0 * plane + row * len..], plane);
            }
        }
    }

    fn flat(&mut self, picture: &[f32], output: &mut [f32]) {
        /// Places that are done for all channels before the next ones: their inputs stay near.
        const AT_ONCE: usize = 1024;
        let (y, x) = (self.geometry.y, self.geometry.x);
        let plane = y.output * x.output;
        let mut answers = std::mem::take(&mut self.answers);
        let block = |pitch: usize| {
            let blocks = y.output.div_ceil((AT_ONCE / pitch).max(1));
            let rows = y.output.div_ceil(blocks);
            (rows, (rows - 1) * pitch + x.output)
        };
        // What is shorter than a vector needs the zeros after the frame.
        let is_plain = self.geometry.is_plain() && block(x.input).1 >= LANES;
        if !is_plain {
            self.fill(picture);
        }
        let (input, taps, pitch) = self.source(picture, is_plain);
        let (rows_at_once, len) = block(pitch);
        let len = len.max(LANES);
        for from in (0..y.output).step_by(rows_at_once) {
            // The last rows reach back: a short remainder would not fill a vector.
            let from = from.min(y.output - rows_at_once);
            answers.resize(self.isa.channels() * len, 0.0);
            for tile in tiles(self.geometry.outputs, self.isa) {
                self.tile(tile, Source { input, taps, at: from * pitch, len }, &mut answers, len);
                for (channel, answers) in answers.chunks_exact(len).take(tile.1).enumerate() {
                    let places = &mut output[(tile.0 + channel) * plane + from * x.output..];
                    let rows = places.chunks_exact_mut(x.output).take(rows_at_once);
                    for (row, answers) in rows.zip(answers.chunks(pitch)) {
                        row.copy_from_slice(&answers[..x.output]);
                    }
                }
            }
        }
        self.answers = answers;
    }

    fn gathered(&mut self, pictures: &[f32], output: &mut [f32], count: usize) {
        let (y, x) = (self.geometry.y, self.geometry.x);
        let plane = y.output * x.output;
        let picture = self.geometry.inputs * y.input * x.input;
        let len = (count * plane).next_multiple_of(LANES);
        let pitch = len + LANES;
        let mut unfolded = std::mem::take(&mut self.unfolded);
        unfolded.resize(self.framed.len() * pitch, 0.0);
        for (index, picture) in pictures.chunks_exact(picture).enumerate() {
            self.fill(picture);
            for (row, tap) in self.framed.iter().enumerate() {
                for line in 0..y.output {
                    let from = &self.frame[tap + line * x.phase()..];
                    let to = &mut unfolded[row * pitch + index * plane + line * x.output..];
                    // Whole vectors are single instructions; what they write too much is written again by the next line
                    // or picture, or lies between the taps.
                    for step in (0..x.output).step_by(LANES) {
                        to[step..][..LANES].copy_from_slice(&from[step..][..LANES]);
                    }
                }
            }
        }
        let taps: Vec<usize> = (0..self.framed.len()).map(|row| row * pitch).collect();
        let mut answers = std::mem::take(&mut self.answers);
        answers.resize(self.isa.channels() * len, 0.0);
        for tile in tiles(self.geometry.outputs, self.isa) {
            self.tile(tile, Source { input: &unfolded, taps: &taps, at: 0, len }, &mut answers, len);
            for (channel, answers) in answers.chunks_exact(len).take(tile.1).enumerate() {
                for (index, answer) in answers.chunks_exact(plane).take(count).enumerate() {
                    let place = (index * self.geometry.outputs + tile.0 + channel) * plane;
                    output[place..place + plane].copy_from_slice(answer);
                }
            }
        }
        (self.answers, self.unfolded) = (answers, unfolded);
    }

    fn lanes(&mut self, pictures: &[f32], output: &mut [f32], count: usize) {
        let (y, x) = (self.geometry.y, self.geometry.x);
        let (plane, pitch) = (y.output * x.output, x.phase());
        let picture = self.geometry.inputs * y.input * x.input;
        self.frame.resize(self.frame_len() * LANES, 0.0);
        let phase = y.phase() * x.phase();
        for index in 0..self.geometry.inputs * y.input {
            let place = self.place(index / y.input, index % y.input);
            for column in 0..x.input {
                let padded = column + x.pad_before;
                let place = (place + padded % x.stride * phase + padded / x.stride) * LANES;
                let numbers = pictures[index * x.input + column..].iter().step_by(picture);
                for (place, number) in self.frame[place..place + count].iter_mut().zip(numbers) {
                    *place = *number;
                }
            }
        }
        let taps: Vec<usize> = self.framed.iter().map(|tap| tap * LANES).collect();
        let mut answers = std::mem::take(&mut self.answers);
        answers.resize(self.geometry.outputs * plane * LANES, 0.0);
        for row in 0..y.output {
            for tile in tiles(self.geometry.outputs, self.isa) {
                let source = Source { input: &self.frame, taps: &taps, at: row * pitch * LANES, len: x.output * LANES };
                let first = (tile.0 * plane + row * x.output) * LANES;
                self.tile(tile, source, &mut answers[first..], plane * LANES);
            }
        }
        let answer = self.geometry.outputs * plane;
        for (place, numbers) in answers.chunks_exact(LANES).enumerate() {
            for (lane, number) in numbers[..count].iter().enumerate() {
                output[lane * answer + place] = *number;
            }
        }
        self.answers = answers;
    }
}

/// Where a group of channels reads.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    input: &'a [f32],
    taps: &'a [usize],
    at: usize,
    len: usize,
}
