//! The tasks in which the streams of an HTTP/2 connection are answered.
//!
//! A task of tokio's is an allocation aligned to 128 bytes, which the system's allocator is slow at, and an entry in the
//! runtime's books. So a stream gets the task of one that has ended, if there is one.

use std::future::Future;
use std::mem::take;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use hyper::rt::Executor;
use parking_lot::Mutex;

/// The tasks of one connection. Dropping it ends those without a stream, and the others with theirs.
#[derive(Default)]
pub(super) struct Streams(Arc<Mutex<Tasks>>);

/// Gives streams to tasks.
#[derive(Clone)]
pub(super) struct StreamExecutor(Arc<Mutex<Tasks>>);

#[derive(Default)]
struct Tasks {
    all: Vec<Arc<Task>>,
    /// Those without a stream.
    idle: Vec<Arc<Task>>,
    is_closed: bool,
}

/// What a task shares with those who wake it.
#[derive(Default)]
struct Task(Mutex<Mail>);

#[derive(Default)]
struct Mail {
    /// What it is to do next.
    stream: Option<Stream>,
    /// There once it has run.
    waker: Option<Waker>,
}

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Streams {
    pub(super) fn executor(&self) -> StreamExecutor {
        StreamExecutor(Arc::clone(&self.0))
    }

    /// Has every stream polled once more.
    pub(super) fn wake(&self) {
        let tasks = self.0.lock().all.clone();
        tasks.iter().for_each(|task| task.give(None));
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        let idle = {
            let mut tasks = self.0.lock();
            tasks.is_closed = true;
            tasks.all.clear();
            take(&mut tasks.idle)
        };
        idle.iter().for_each(|task| task.give(None));
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let stream = Box::pin(stream);
        let idle = self.0.lock().idle.pop();
        if let Some(task) = idle {
            return task.give(Some(stream));
        }
        let task = Arc::<Task>::default();
        {
            let mut tasks = self.0.lock();
            if !tasks.is_closed {
                tasks.all.push(Arc::clone(&task));
            }
        }
        tokio::spawn(Running { stream: Some(stream), task, tasks: Arc::clone(&self.0) });
    }
}

impl Task {
    /// Wakes it, with something to do where that is given.
    fn give(&self, stream: Option<Stream>) {
        let mut mail = self.0.lock();
        if stream.is_some() {
            mail.stream = stream;
        }
        let waker = mail.waker.clone();
        drop(mail);
        waker.inspect(Waker::wake_by_ref);
    }

    /// What it was given. Whoever gives it something from now on wakes it.
    fn take(&self, context: &Context<'_>) -> Option<Stream> {
        let mut mail = self.0.lock();
        if mail.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            mail.waker = Some(context.waker().clone());
        }
        mail.stream.take()
    }
}

/// A task as tokio runs it. Ready once there will be no further stream.
struct Running {
    stream: Option<Stream>,
    task: Arc<Task>,
    tasks: Arc<Mutex<Tasks>>,
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { stream, task, tasks } = &mut *self;
        // It is given nothing while it has a stream.
        if let given @ Some(_) = task.take(context) {
            *stream = given;
        }
        let Some(present) = stream else {
            return if tasks.lock().is_closed { Poll::Ready(()) } else { Poll::Pending };
        };
        ready!(present.as_mut().poll(context));
        *stream = None;
        let mut tasks = tasks.lock();
        if tasks.is_closed {
            return Poll::Ready(());
        }
        // Who finds it here wakes it, also before this call has returned.
        tasks.idle.push(Arc::clone(task));
        Poll::Pending
    }
}

/// Also where a stream has panicked.
impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.lock().all.retain(|task| !Arc::ptr_eq(task, &self.task));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::Arc;
    use std::task::Poll;

    use hyper::rt::Executor as _;
    use parking_lot::Mutex;
    use tokio::runtime::Handle;
    use tokio::sync::oneshot;
    use tokio::task::{id, yield_now};

    use super::Streams;

    /// Until all that is not waiting has run.
    async fn settle() {
        for _ in 0..20 {
            yield_now().await;
        }
    }

    fn n_tasks() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    #[tokio::test]
    async fn a_stream_gets_the_task_of_one_that_has_ended() {
        let streams = Streams::default();
        let ids = Arc::new(Mutex::new(Vec::new()));
        let stream = || {
            let ids = Arc::clone(&ids);
            async move {
                yield_now().await;
                ids.lock().push(id());
            }
        };
        for round in 1..=3 {
            streams.executor().execute(stream());
            streams.executor().execute(stream());
            settle().await;
            assert_eq!((ids.lock().len(), n_tasks()), (2 * round, 2));
        }
        ids.lock().sort_by_key(ToString::to_string);
        ids.lock().dedup();
        assert_eq!(ids.lock().len(), 2);
        drop(streams);
        settle().await;
        assert_eq!(n_tasks(), 0, "tasks without a stream end with the connection");
    }

    #[tokio::test]
    async fn a_stream_goes_on_after_its_connection_and_its_task_ends_with_it() {
        let streams = Streams::default();
        let (ask, asked) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        streams.executor().execute(async move {
            asked.await.unwrap();
            answer.send(()).unwrap();
        });
        settle().await;
        drop(streams);
        ask.send(()).unwrap();
        answered.await.unwrap();
        settle().await;
        assert_eq!(n_tasks(), 0);
    }

    #[tokio::test]
    async fn all_streams_can_be_woken() {
        let streams = Streams::default();
        let polls = Arc::new(Mutex::new(0));
        for _ in 0..3 {
            let polls = Arc::clone(&polls);
            streams.executor().execute(poll_fn(move |_| {
                *polls.lock() += 1;
                Poll::Pending
            }));
        }
        settle().await;
        streams.wake();
        settle().await;
        assert_eq!(*polls.lock(), 6);
    }

    #[tokio::test]
    async fn a_stream_that_panics_takes_its_task_along_and_no_other() {
        let streams = Streams::default();
        streams.executor().execute(pending());
        streams.executor().execute(async { panic!("on purpose") });
        settle().await;
        assert_eq!((n_tasks(), streams.0.lock().all.len()), (1, 1));
        let (answer, answered) = oneshot::channel();
        streams.executor().execute(async move { answer.send(()).unwrap() });
        answered.await.unwrap();
    }
}
