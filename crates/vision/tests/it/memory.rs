//! Memory: hostile files and odd proportions cost no more than a sound picture of the size that they may have.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use millrace_vision::{Filter, Limits, decode, resize, resize_and_crop};

use crate::{image, noise};

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, keeping for each thread how many bytes it holds and the most that it has held.
struct PeakAllocator;

#[global_allocator]
static ALLOCATOR: PeakAllocator = PeakAllocator;

fn account(taken: usize, returned: usize) {
    // A thread that is ending has no counters any more, and nobody who reads them.
    let _ended = HELD.try_with(|held| {
        held.set((held.get() + taken).saturating_sub(returned));
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

#[expect(unsafe_code, reason = "an allocator can be measured only by standing in for it")]
// SAFETY: every call is passed on to the system's allocator as it came; accounting touches thread-local integers only.
unsafe impl GlobalAlloc for PeakAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        account(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        account(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        account(0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most bytes that `work` holds at once on this thread, over what was held before.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    let peak = PEAK.get() - before;
    drop(result);
    peak
}

#[test]
fn a_claim_allocates_nothing_like_what_it_claims() {
    for name in ["claims_65535.png", "claims_2_31.png", "claims_6000.png", "claims_65500.jpg", "claims_6000.jpg"] {
        let file = image(&format!("bombs/{name}"));
        let held = peak(|| decode(&file, &Limits::default()).unwrap_err());
        assert!(held < 256 << 10, "{name}: {held} bytes");
    }
}

#[test]
fn what_a_chunk_hides_takes_no_memory() {
    for name in ["hides_iccp", "hides_ztxt", "hides_itxt", "hides_idat"] {
        let file = image(&format!("bombs/{name}.png"));
        let held = peak(|| decode(&file, &Limits::default()));
        assert!(held < 1 << 20, "{name}: {held} bytes");
    }
}

#[test]
fn a_sound_file_takes_its_pixels_and_little_more() {
    for name in ["rgb.png", "interlaced.png", "sixteen_bit.png"] {
        let file = image(name);
        let held = peak(|| decode(&file, &Limits::default()).unwrap());
        assert!(held < 40 * 28 * 3 + (320 << 10), "{name}: {held} bytes");
    }
}

#[test]
fn odd_proportions_cost_no_more_than_others() {
    for (width, height) in [(60_000, 20), (20, 60_000)] {
        let picture = noise(width, height, 1);
        let held = peak(|| resize(&picture, 224, 224, Filter::Bilinear).unwrap());
        assert!(held < 8 << 20, "{width}x{height} stretched: {held} bytes");
        let held = peak(|| resize_and_crop(&picture, 256, 224, 224, Filter::Bilinear).unwrap());
        assert!(held < 8 << 20, "{width}x{height} cropped: {held} bytes");
    }
}
