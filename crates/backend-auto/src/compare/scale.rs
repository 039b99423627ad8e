//! How large the values of an output are, so that rounding can be told from an error.
//!
//! One output may hold values of different kinds: detectors put coordinates of some hundreds beside scores of at most one.
//! So the largest value is learnt for each index along the second and the last axis as well. Where these fall into groups
//! far apart, each group is measured by its own largest value; where they do not, the values are of one kind, and a small
//! one among them is as inexact as a large one.

/// How often the largest value of one group is the largest of the next, at least.
const APART: f64 = 16.0;
/// An index with fewer values in a request says too little about how large they may become.
const LEAST_VALUES: usize = 16;
/// Longer axes are not looked at one by one.
const LONGEST: usize = 1 << 16;

/// What was learnt about one output.
#[derive(Debug, Default)]
pub(crate) struct Scales {
    /// The largest absolute value.
    whole: f64,
    /// `None` before anything was learnt, and empty where answers are not alike.
    axes: Option<Vec<Axis>>,
}

/// The largest absolute value for each index along one axis.
#[derive(Debug, PartialEq)]
struct Axis {
    axis: usize,
    largest: Vec<f64>,
}

impl Scales {
    /// Learns from the values of a tensor of `sizes` that holds `rows` requests.
    pub(crate) fn learn(&mut self, sizes: &[usize], rows: usize, values: &[f64]) {
        let mut wanted = if sizes.len() < 2 { Vec::new() } else { vec![1, sizes.len() - 1] };
        wanted.dedup();
        let told = |axis: &usize| {
            let size = sizes[*axis];
            (1..=LONGEST).contains(&size) && values.len() / rows.max(1) / size >= LEAST_VALUES
        };
        wanted.retain(told);
        let shape = |axes: &[Axis]| axes.iter().map(|own| (own.axis, own.largest.len())).collect::<Vec<_>>();
        let axes = self.axes.get_or_insert_with(|| {
            wanted.iter().map(|axis| Axis { axis: *axis, largest: vec![0.0; sizes[*axis]] }).collect()
        });
        if !shape(axes).into_iter().eq(wanted.iter().map(|axis| (*axis, sizes[*axis]))) {
            axes.clear();
        }
        let strides: Vec<usize> = axes.iter().map(|own| stride(sizes, own.axis)).collect();
        for (element, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let value = value.abs();
            self.whole = self.whole.max(value);
            for (own, stride) in axes.iter_mut().zip(&strides) {
                let index = element / stride % own.largest.len();
                own.largest[index] = own.largest[index].max(value);
            }
        }
    }

    /// The largest absolute value of all.
    pub(crate) fn whole(&self) -> f64 {
        self.whole
    }

    /// By what each element of a tensor of `sizes` is measured.
    pub(crate) fn by_element(&self, sizes: &[usize]) -> ByElement {
        let fits = |own: &&Axis| sizes.get(own.axis) == Some(&own.largest.len());
        let axes = self.axes.iter().flatten().filter(fits);
        let axes = axes.map(|own| (stride(sizes, own.axis), grouped(&own.largest)));
        ByElement { whole: self.whole, axes: axes.filter(|(_, scales)| !scales.is_empty()).collect() }
    }
}

/// See [`Scales::by_element`].
pub(crate) struct ByElement {
    whole: f64,
    /// The distance of two neighbours along an axis, and the scale of each index.
    axes: Vec<(usize, Vec<f64>)>,
}

impl ByElement {
    /// The scale of the element at this place of the tensor, laid out flat.
    pub(crate) fn scale(&self, element: usize) -> f64 {
        let own = self.axes.iter().map(|(stride, scales)| scales[element / stride % scales.len()]);
        own.fold(self.whole, f64::min)
    }
}

fn stride(sizes: &[usize], axis: usize) -> usize {
    sizes[axis + 1..].iter().product::<usize>().max(1)
}

/// The largest value of the group that each index belongs to; empty where there is one group only. Where all is zero, the
/// smallest group says how large a value beside it may be.
fn grouped(largest: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = largest.iter().copied().filter(|value| *value > 0.0).collect();
    sorted.sort_by(|one, other| other.total_cmp(one));
    // The smallest and the largest value of each group, from large to small.
    let mut groups: Vec<(f64, f64)> = Vec::new();
    for value in sorted {
        match groups.last_mut() {
            Some((smallest, _)) if *smallest < value * APART => *smallest = value,
            _ => groups.push((value, value)),
        }
    }
    let Some(last) = groups.last().map(|(_, largest)| *largest).filter(|_| groups.len() > 1) else {
        return Vec::new();
    };
    let own = |value: &f64| groups.iter().find(|(smallest, _)| value >= smallest).map_or(last, |(_, largest)| *largest);
    largest.iter().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::{Scales, grouped};

    #[test]
    fn groups_are_told_apart_by_a_gap_and_not_by_size_alone() {
        assert!(grouped(&[1.0, 3.0, 9.0, 27.0, 81.0]).is_empty());
        assert_eq!(grouped(&[600.0, 1.0, 0.2, 640.0, 0.0]), [640.0, 1.0, 1.0, 640.0, 1.0]);
        assert_eq!(grouped(&[1e6, 1e3, 1.0]), [1e6, 1e3, 1.0]);
        assert!(grouped(&[0.0, 0.0]).is_empty() && grouped(&[]).is_empty());
    }

    #[test]
    fn few_values_for_an_index_or_answers_of_several_shapes_leave_one_scale() {
        let scale = |learnt: &[(&[usize], usize)]| {
            let mut scales = Scales::default();
            for (sizes, rows) in learnt {
                let width = sizes[sizes.len() - 1];
                let values: Vec<f64> =
                    (0..sizes.iter().product()).map(|element| if element % width == 0 { 640.0 } else { 1.0 }).collect();
                scales.learn(sizes, *rows, &values);
            }
            scales.by_element(learnt[0].0).scale(1)
        };
        assert_eq!(scale(&[(&[1, 20, 4], 1)]), 1.0);
        assert_eq!(scale(&[(&[1, 20, 4], 1), (&[8, 20, 4], 8)]), 1.0);
        assert_eq!(scale(&[(&[20, 4], 1)]), 1.0);
        // Sixty-four rows of a classifier are not sixty-four values of one request.
        assert_eq!(scale(&[(&[64, 4], 64)]), 640.0);
        assert_eq!(scale(&[(&[1, 20, 4], 1), (&[1, 20, 5], 1)]), 640.0);
    }
}
