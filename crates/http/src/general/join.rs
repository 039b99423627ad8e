//! Waits for many futures in one task, so many at a time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Futures that are at work at once.
const AT_ONCE: usize = 64;

/// The outputs of all `futures`, in their order. Dropping the whole drops each.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting = futures.enumerate();
    let mut is_drained = false;
    let mut working: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut outputs: Vec<Option<F::Output>> = Vec::new();
    poll_fn(|context| {
        loop {
            while working.len() < AT_ONCE && !is_drained {
                match waiting.next() {
                    Some((index, future)) => {
                        outputs.push(None);
                        working.push((index, Box::pin(future)));
                    }
                    None => is_drained = true,
                }
            }
            let before = working.len();
            working.retain_mut(|(index, future)| match future.as_mut().poll(context) {
                Poll::Ready(output) => {
                    outputs[*index] = Some(output);
                    false
                }
                Poll::Pending => true,
            });
            match working.len() {
                0 if is_drained => return Poll::Ready(()),
                // Whoever came in place of those that ended has not been asked yet.
                left if left < before => {}
                _ => return Poll::Pending,
            }
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{AT_ONCE, join_all};

    #[tokio::test(start_paused = true)]
    async fn outputs_keep_their_order_and_few_work_at_once() {
        let (working, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let job = |number: u64| {
            let (working, most) = (&working, &most);
            async move {
                most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(1 + (number * 7) % 13)).await;
                working.fetch_sub(1, Ordering::SeqCst);
                number
            }
        };
        let outputs = join_all((0..500).map(job)).await;
        assert_eq!(outputs, (0..500).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        assert!(join_all(std::iter::empty::<std::future::Ready<()>>()).await.is_empty());
    }
}
