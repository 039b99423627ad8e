//! Work of an operator, divided among the threads that its run was given.

use rayon::prelude::*;

/// Products that are worth another thread: some 5 µs, about what it costs to hand it something.
const WORTH: usize = 1 << 18;

/// Calls `work` with parts of `output`, which together are all of it, and with the number of each part's first unit. A unit is
/// `len` places, is never divided, and costs `products`. One part where there is but one thread, or little to do.
pub(super) fn share<T: Send>(
    output: &mut [T],
    len: usize,
    products: usize,
    work: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    let units = output.len().checked_div(len).unwrap_or(0);
    let threads = millrace_threads::granted().min(units).min(units.saturating_mul(products) / WORTH);
    if threads <= 1 {
        return work(0, output);
    }
    let of_each = units.div_ceil(threads);
    output.par_chunks_mut(of_each * len).enumerate().for_each(|(part, output)| work(part * of_each, output));
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// The first unit and the length of each part of `units` units of two places.
    fn parts(threads: usize, units: usize, products: usize) -> Vec<(usize, usize)> {
        let parts = Mutex::new(Vec::new());
        let mut output = vec![0; 2 * units];
        let work = || {
            share(&mut output, 2, products, |first, part| {
                parts.lock().push((first, part.len()));
                for (unit, places) in (first..).zip(part.chunks_exact_mut(2)) {
                    places.fill(unit + 1);
                }
            });
        };
        millrace_threads::within(threads, work).unwrap();
        assert!(output.iter().enumerate().all(|(place, unit)| *unit == place / 2 + 1), "{output:?}");
        let mut parts = parts.into_inner();
        parts.sort_unstable();
        parts
    }

    #[test]
    fn each_thread_has_a_share_where_there_is_enough_to_do() {
        assert_eq!(parts(1, 5, 10 * WORTH), [(0, 10)]);
        assert_eq!(parts(2, 5, 10 * WORTH), [(0, 6), (3, 4)]);
        assert_eq!(parts(3, 5, 10 * WORTH), [(0, 4), (2, 4), (4, 2)]);
        assert_eq!(parts(8, 3, 10 * WORTH), [(0, 2), (1, 2), (2, 2)]);
        // Three units are worth one thread more, and no second one.
        assert_eq!(parts(8, 3, WORTH - 1), [(0, 4), (2, 2)]);
        assert_eq!(parts(8, 3, WORTH / 3), [(0, 6)]);
        assert_eq!(parts(2, 0, WORTH), [(0, 0)]);
    }
}
