//! What runs cost, learned from how long they took: t(n) ≈ a + b·n, with spread. Pure: times are handed in.
//!
//! Run times are noisy, the first is cold, a specialised plan has a price of its own, and in some engines a batch costs
//! more than its rows apart. So each row count keeps its own robust estimate; a line through those stands in for counts
//! that never ran. Which groups exist and what is done about the costs is `groups`' matter.

use std::time::Duration;

use self::level::Level;

mod level;

/// The most row counts with an estimate of their own.
const MOST_SAMPLES: usize = 32;
/// So many runs of one row count are evidence.
const EVIDENCE: u32 = 3;
/// So many tell enough to go on from it to larger ones.
const MUCH_EVIDENCE: u32 = 8;
/// What a run costs beside the engine's own time, in seconds: forming the batch, changing over to its thread and back, waking
/// those who wait. A tiny model's rows are cheap apart and yet dear to run apart.
const PER_RUN: f64 = 4e-6;
/// A gain below this share is noise.
const MARGIN: f64 = 1.03;
/// Where callers wait for others' rows, batches that take more than so many times what the smallest takes must gain more
/// than `LONG_MARGIN`: who rides along takes as long.
const LONG: f64 = 1.5;
/// What they must gain.
const LONG_MARGIN: f64 = 1.1;
/// What rows beside those of somebody who came to wait for others' must gain.
const OWN_MARGIN: f64 = 1.3;
/// Batches must lose by this much before an operator's batches are run row by row.
const LOSS: f64 = 1.15;
/// The estimate forgets at this rate.
const FORGET: f64 = 1.0 / 16.0;
/// So many outliers in a row are no outliers but a new level.
const LEVEL_SHIFT: u32 = 4;
/// As long as a size ran no oftener than this, a run of less than half the time shows that those before were cold.
const YOUNG: u32 = 4;
/// What a plan specialised for a row count is hoped to cost, next to the general plan, until it has run.
const HOPE: f64 = 0.7;
/// A run of a size that never ran may be expected to take this long, whatever the sizes that did run.
const SAFE_SECONDS: f64 = 0.02;
/// How many rows a first run may have: nobody knows yet whether a row takes a microsecond or a second.
const FIRST_ROWS: usize = 1;

/// How long a run will take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Prediction {
    /// Seconds, on average.
    pub(crate) mean: f64,
    /// Seconds that few runs exceed.
    pub(crate) high: f64,
    /// Seconds that most runs stay below.
    pub(crate) likely: f64,
    /// Seconds when nothing disturbs: what the work itself is worth, where the mean holds what other threads took of the
    /// core meanwhile.
    pub(crate) least: f64,
}

/// The run times of one group.
#[derive(Debug, Clone)]
pub(crate) struct CostModel {
    /// The most rows that a run may ever have: what larger ones would cost is not guessed.
    most: usize,
    samples: Vec<Sample>,
    runs: u64,
    level: Level,
    line: Option<Line>,
    best: Best,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    bucket: usize,
    is_prepared: bool,
    /// The mean of the row counts that fell into this bucket.
    rows: f64,
    mean: f64,
    spread: f64,
    least: f64,
    count: u32,
    outliers: u32,
}

/// t(n) = a + b·n, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// Whether at least two row counts with evidence stand behind it.
    pub(crate) is_learned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Best {
    rows: usize,
    /// The same where a long batch must gain more.
    brief: usize,
    /// The same where any that ride along must gain more still.
    own: usize,
    row_seconds: f64,
    is_row_by_row: bool,
}

impl Default for Best {
    fn default() -> Self {
        Self { rows: usize::MAX, brief: usize::MAX, own: usize::MAX, row_seconds: 0.0, is_row_by_row: false }
    }
}

impl CostModel {
    /// Nothing is known yet about runs of up to `most` rows.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, samples: Vec::new(), runs: 0, level: Level::default(), line: None, best: Best::default() }
    }

    /// The most rows that a run may have.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Learns that a run of `rows` rows, padding included, took so many seconds. `is_prepared` says whether the model was
    /// specialised for just that count.
    pub(crate) fn observe(&mut self, rows: usize, is_prepared: bool, seconds: f64) {
        let bucket = if is_prepared { rows } else { bucket(rows) };
        let known = self.samples.iter().position(|s| s.bucket == bucket && s.is_prepared == is_prepared);
        let surprise = known.and_then(|index| self.samples[index].surprise(seconds));
        let shift = surprise.and_then(|(factor, is_surprise)| self.level.observe(bucket, factor, is_surprise));
        if let Some(factor) = shift {
            self.samples.iter_mut().filter(|sample| sample.is_evident()).for_each(|sample| sample.shift(factor));
        }
        if let Some(index) = known {
            self.samples[index].observe(rows, seconds);
        } else {
            self.forget_one();
            self.samples.push(Sample::new(bucket, is_prepared, rows, seconds));
        }
        self.runs += 1;
        // Looking at all samples costs microseconds; a settled model need not pay that for every run.
        if self.runs < 64 || self.runs.is_multiple_of(16) || shift.is_some() {
            self.settle();
        }
    }

    /// How long a run of `rows` rows will take, or `None` before anything ran.
    pub(crate) fn predict(&self, rows: usize, is_prepared: bool) -> Option<Prediction> {
        let line = self.line?;
        if let Some(sample) = self.sample(rows, is_prepared) {
            let mean = (sample.mean + line.b * (rows as f64 - sample.rows)).max(sample.mean / 2.0);
            let least = mean * sample.least / sample.mean.max(f64::MIN_POSITIVE);
            let (high, likely) = (mean * 1.1 + 3.0 * sample.spread, mean + sample.spread);
            return Some(Prediction { mean, high, likely, least });
        }
        let mut mean = self.guess(line, rows as f64);
        if is_prepared {
            mean *= HOPE;
        }
        // A size that never ran: the spread is anybody's guess, so half of the mean.
        Some(Prediction { mean, high: mean * 1.5, likely: mean * 1.1, least: mean })
    }

    /// Seconds that a warm run of `rows` rows costs with everything around it.
    pub(crate) fn price(&self, rows: usize, is_prepared: bool) -> Option<f64> {
        let mean = match self.sample(rows, is_prepared) {
            Some(sample) if sample.count == 1 => self.warm(sample) * rows as f64,
            _ => self.predict(rows, is_prepared)?.mean,
        };
        Some(mean + PER_RUN)
    }

    /// The smallest row count beyond which more rows in one run do not pay; `usize::MAX` while nothing is known.
    pub(crate) fn best_rows(&self) -> usize {
        self.best.rows
    }

    /// The same where some wait for others' rows: a batch that takes long must save more.
    pub(crate) fn brief_rows(&self) -> usize {
        self.best.brief
    }

    /// The same where one of those leads, and what its batch is dearer for costs nobody an answer.
    pub(crate) fn own_rows(&self) -> usize {
        self.best.own
    }

    /// Seconds per row in runs of the best size; zero while nothing is known.
    pub(crate) fn row_seconds(&self) -> f64 {
        self.best.row_seconds
    }

    /// Whether runs of several rows were seen to lose against single ones.
    pub(crate) fn is_row_by_row(&self) -> bool {
        self.best.is_row_by_row
    }

    /// How many runs this rests on.
    pub(crate) fn runs(&self) -> u64 {
        self.runs
    }

    /// The line, once anything ran.
    pub(crate) fn line(&self) -> Option<Line> {
        self.line
    }

    /// The most rows that a run may have without being a leap in the dark: twice the most that ran twice (the first run of a
    /// size is cold and tells little), or whatever is surely short. A convolution that takes seconds for 64 rows is found out
    /// at a few.
    pub(crate) fn reach(&self) -> usize {
        if self.samples.is_empty() {
            return FIRST_ROWS;
        }
        let tried = |sample: &Sample| if sample.count > 1 { 2.0 * sample.rows } else { sample.rows };
        let most = self.samples.iter().map(tried).fold(0.0, f64::max);
        whole(most).max(self.short()).max(2)
    }

    /// How many rows surely run in no time, whatever else is known.
    pub(crate) fn short(&self) -> usize {
        let row = self.samples.iter().map(Sample::row_seconds).fold(0.0, f64::max);
        // Three times the worst row seen: batches that lose, lose by about that much.
        whole(SAFE_SECONDS / (3.0 * row).max(1e-9))
    }

    /// Forgets what the specialised plan for `rows` cost: it was made anew.
    pub(crate) fn forget_prepared(&mut self, rows: usize) {
        self.samples.retain(|sample| !(sample.is_prepared && sample.bucket == rows));
    }

    fn sample(&self, rows: usize, is_prepared: bool) -> Option<&Sample> {
        let bucket = if is_prepared { rows } else { bucket(rows) };
        self.samples.iter().find(|sample| sample.bucket == bucket && sample.is_prepared == is_prepared)
    }

    /// Seconds per row of a size that ran once. That run was cold: the second will tell, and need not cost more than was to be
    /// expected.
    fn warm(&self, sample: &Sample) -> f64 {
        let expected = self.line.map_or(f64::INFINITY, |line| self.guess(line, sample.rows) / sample.rows);
        expected.min(sample.row_seconds())
    }

    /// Seconds of a run of a size that never ran warm. Beyond the largest that often ran it goes on from there, from as little as
    /// that surely takes: where the curve is bent the line lies far below it, and a size that seems cheap but never fits a
    /// deadline would be the best for ever.
    fn guess(&self, line: Line, rows: f64) -> f64 {
        let known = self.samples.iter().filter(|sample| sample.count >= MUCH_EVIDENCE && !sample.is_prepared);
        let largest =
            known.max_by(|left, right| left.rows.total_cmp(&right.rows)).filter(|largest| largest.rows < rows);
        let beyond = largest.map_or(0.0, |largest| {
            largest.mean * (1.0 - largest.doubt(self.wobble())) + line.b * (rows - largest.rows)
        });
        (line.a + line.b * rows).max(beyond).max(self.floor() * rows)
    }

    /// No run of the line can be cheaper per row than half the cheapest seen: a line with a < 0 would say so.
    fn floor(&self) -> f64 {
        let cheapest = self.samples.iter().map(Sample::row_seconds).fold(f64::INFINITY, f64::min);
        if cheapest.is_finite() { cheapest / 2.0 } else { 0.0 }
    }

    fn forget_one(&mut self) {
        if self.samples.len() < MOST_SAMPLES {
            return;
        }
        // The single row stays: every comparison starts from it.
        let weakest = self.samples.iter().enumerate().filter(|(_, sample)| sample.bucket != 1);
        if let Some((index, _)) = weakest.min_by_key(|(_, sample)| sample.count) {
            self.samples.swap_remove(index);
        }
    }

    /// By what share single runs differ from their mean, over all sizes that ran often enough to tell.
    fn wobble(&self) -> f64 {
        let evident = self.samples.iter().filter(|sample| sample.is_evident());
        let (sum, runs) = evident.fold((0.0, 0.0), |(sum, runs), sample| {
            let count = f64::from(sample.count.min(32));
            (sum + count * sample.spread / sample.mean.max(f64::MIN_POSITIVE), runs + count)
        });
        if runs > 0.0 { sum / runs } else { 0.25 }
    }

    fn settle(&mut self) {
        self.line = self.fit(true).or_else(|| self.fit(false));
        self.best = self.find_best();
    }

    /// Weighted least squares of the relative error, over the general plan's samples or over all. First runs count only
    /// where there are no others.
    fn fit(&self, general_only: bool) -> Option<Line> {
        let (mut w, mut n, mut t, mut nn, mut nt) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let (mut evident, mut smallest, mut largest) = (0, f64::INFINITY, 0.0_f64);
        let fits = |sample: &&Sample| !(general_only && sample.is_prepared);
        let are_all_cold = self.samples.iter().all(|sample| sample.count == 1);
        for sample in self.samples.iter().filter(fits).filter(|sample| are_all_cold || sample.count > 1) {
            let weight = f64::from(sample.count.min(32)) / (sample.mean * sample.mean).max(1e-18);
            w += weight;
            n += weight * sample.rows;
            t += weight * sample.mean;
            nn += weight * sample.rows * sample.rows;
            nt += weight * sample.rows * sample.mean;
            evident += usize::from(sample.count >= EVIDENCE);
            (smallest, largest) = (smallest.min(sample.rows), largest.max(sample.rows));
        }
        if w <= 0.0 {
            return None;
        }
        let (mean_n, mean_t) = (n / w, t / w);
        if largest < smallest * 1.01 {
            // One size says nothing about the slope. Half and half makes trying a larger size look worth it.
            return Some(Line { a: mean_t / 2.0, b: mean_t / 2.0 / mean_n, is_learned: false });
        }
        let b = (w * nt - n * t) / (w * nn - n * n);
        let line = if b > 0.0 { (mean_t - b * mean_n, b) } else { (mean_t, 0.0) };
        Some(Line { a: line.0, b: line.1, is_learned: evident >= 2 })
    }

    fn find_best(&self) -> Best {
        let reach = self.reach().min(self.most);
        let powers = std::iter::successors(Some(1_usize), |size| size.checked_mul(2)).take_while(|size| *size <= reach);
        // The largest that may be tried is among them: else a size that nothing larger was compared with stays the best.
        let guessed = powers.chain([reach]).filter(|size| self.sample(*size, false).is_none());
        let guessed = guessed.filter_map(|size| Some((size, self.predict(size, false)?.mean / size as f64)));
        let guessed = guessed.map(|(size, row)| (size, row, 0.0));
        let wobble = self.wobble();
        let seen = self.samples.iter();
        let seen = seen.map(|sample| {
            let rows = whole(sample.rows.round()).max(1);
            if sample.count == 1 {
                (rows, self.warm(sample), 0.0)
            } else {
                (rows, sample.row_seconds(), sample.doubt(wobble))
            }
        });
        let all =
            || seen.clone().chain(guessed.clone()).map(|(rows, row, doubt)| (rows, row + PER_RUN / rows as f64, doubt));
        // The cheapest of many estimates is mostly the luckiest. So a size counts for as cheap as it surely is, and a smaller
        // one is good enough that may be as cheap as that.
        let cheapest = all().map(|(_, row, doubt)| row * (1.0 + doubt)).fold(f64::INFINITY, f64::min);
        let least = self.samples.iter().min_by(|left, right| left.rows.total_cmp(&right.rows));
        let long = least.map_or(f64::INFINITY, |least| LONG * least.mean);
        let is_good = |row: f64, doubt: f64, margin: f64| row * (1.0 - doubt) <= cheapest * margin;
        let good = all().filter(|(_, row, doubt)| is_good(*row, *doubt, MARGIN));
        let Some((rows, row_seconds, _)) = good.min_by_key(|(size, ..)| *size) else { return Best::default() };
        let is_long = |size: usize, row: f64| row * size as f64 > long;
        let brief = all().filter(|(size, row, doubt)| is_long(*size, *row) && is_good(*row, *doubt, LONG_MARGIN));
        let brief = brief.map(|(size, ..)| size).fold(rows, usize::min);
        let own = all().filter(|(_, row, doubt)| is_good(*row, *doubt, OWN_MARGIN));
        let own = own.map(|(size, ..)| size).fold(brief, usize::min);
        let evident = |sample: &&Sample| sample.count >= EVIDENCE;
        let row_of = |several: bool| {
            let wanted = self.samples.iter().filter(evident).filter(move |sample| (sample.bucket > 1) == several);
            wanted.map(Sample::row_seconds).fold(f64::INFINITY, f64::min)
        };
        let (single, several) = (row_of(false), row_of(true));
        let is_row_by_row = rows == 1 && several.is_finite() && several > single * LOSS;
        Best { rows, brief, own, row_seconds, is_row_by_row }
    }
}

impl Sample {
    fn new(bucket: usize, is_prepared: bool, rows: usize, seconds: f64) -> Self {
        let rows = rows as f64;
        let (mean, spread) = (seconds, seconds / 4.0);
        Self { bucket, is_prepared, rows, mean, spread, least: seconds, count: 1, outliers: 0 }
    }

    fn row_seconds(&self) -> f64 {
        self.mean / self.rows.max(1.0)
    }

    /// By what share the mean may be wrong: its standard error, where single runs differ from it by `wobble`.
    fn doubt(&self, wobble: f64) -> f64 {
        let runs = f64::from(self.count).min(2.0 / FORGET);
        // A standard deviation is a quarter more than a mean distance.
        (1.25 * wobble / runs.sqrt()).min(0.5)
    }

    /// Runs that differ by more than this from the mean are surprising.
    fn usual(&self) -> f64 {
        4.0 * self.spread.max(self.mean / 10.0)
    }

    fn is_evident(&self) -> bool {
        self.count >= EVIDENCE
    }

    /// How many times its usual time such a run takes, and whether that is a surprise; `None` while it is not known well enough.
    fn surprise(&self, seconds: f64) -> Option<(f64, bool)> {
        let is_surprise = (seconds - self.mean).abs() > self.usual();
        self.is_evident().then(|| (seconds / self.mean.max(f64::MIN_POSITIVE), is_surprise))
    }

    /// Runs of all sizes take so many times as long from now on. This one's own will soon tell more exactly.
    fn shift(&mut self, factor: f64) {
        (self.mean, self.spread, self.least) = (self.mean * factor, self.spread * factor, self.least * factor);
        (self.count, self.outliers) = (EVIDENCE, 0);
    }

    fn observe(&mut self, rows: usize, seconds: f64) {
        let limit = self.mean + self.usual();
        let mut value = seconds;
        if seconds > limit {
            self.outliers += 1;
            if self.outliers >= LEVEL_SHIFT {
                (self.mean, self.spread, self.count, self.outliers) = (seconds, seconds / 4.0, 1, 0);
                self.least = seconds;
            }
            value = limit;
        } else {
            self.outliers = 0;
        }
        self.count = self.count.saturating_add(1);
        let is_cold = self.count == 2 && value < self.mean || self.count <= YOUNG && value < self.mean / 2.0;
        if is_cold {
            // The first runs are cold. What came after them is the better guess.
            (self.mean, self.spread, self.count) = (value, value / 4.0, 2);
        }
        let rate = (1.0 / f64::from(self.count)).max(FORGET);
        self.rows += rate * (rows as f64 - self.rows);
        self.spread += rate * ((value - self.mean).abs() - self.spread);
        self.mean += rate * (value - self.mean);
        // One undisturbed run among many tells; without any, it comes up to the mean again.
        self.least = (self.least + FORGET / 16.0 * (self.mean - self.least)).min(seconds);
    }
}

/// Small counts apart, larger ones four to the octave.
fn bucket(rows: usize) -> usize {
    let shift = rows.checked_ilog2().unwrap_or(0).saturating_sub(2);
    (rows >> shift) << shift
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as it should")]
pub(crate) fn whole(value: f64) -> usize {
    value as usize
}

/// Seconds as a duration; what is no time at all is zero, what is too long is the longest.
pub(crate) fn duration(seconds: f64) -> Duration {
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests;
