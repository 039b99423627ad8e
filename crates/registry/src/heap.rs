//! Giving freed memory back to the system.

/// Gives back what is free in the allocator's heaps.
///
/// glibc gives back by itself only what lies free at the end of a heap: most of what a model had stays with the process, for
/// whatever is allocated next. Does nothing where the C library is another, and has no effect on another allocator.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "there is no other way to ask the C library")]
        // SAFETY: `malloc_trim` may be called at any time from any thread; it takes the heaps' own locks and moves nothing that
        // is in use (malloc_trim(3)).
        let _was_any = unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::fs;

    use super::give_back;

    const MIB: usize = 1 << 20;

    fn resident() -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    }

    #[test]
    fn what_is_free_between_what_is_used_goes_back() {
        // Small enough to come from a heap, and not from the system one by one.
        let mut pieces: Vec<Vec<u8>> = (0..4096).map(|_| vec![1; MIB / 16]).collect();
        // In use at the heap's end.
        let last = pieces.pop();
        drop(pieces);
        let before = resident();
        give_back();
        let after = resident();
        assert!(after + 128 * MIB < before, "{before} before, {after} after");
        drop(last);
    }
}
