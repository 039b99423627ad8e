//! The pool's one low-priority thread, on which models are specialised for row counts that turned out to be frequent.

use std::sync::Weak;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use millrace_core::Group;
use parking_lot::Mutex;

use crate::niceness;
use crate::pool::Led;

/// How many orders may wait.
const MOST: usize = 256;

struct Order {
    queue: Weak<dyn Led>,
    group: Group,
    rows: usize,
}

pub(crate) struct Background {
    orders: Mutex<Option<Sender<Order>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (orders, waiting) = crossbeam_channel::bounded(MOST);
        let thread = std::thread::Builder::new().name("millrace-prepare".to_owned()).spawn(move || work(&waiting))?;
        Ok(Self { orders: Mutex::new(Some(orders)), thread: Mutex::new(Some(thread)) })
    }

    /// Queues an order. False when too many wait or the thread is stopping.
    pub(crate) fn add(&self, queue: Weak<dyn Led>, group: Group, rows: usize) -> bool {
        let orders = self.orders.lock();
        orders.as_ref().is_some_and(|orders| orders.try_send(Order { queue, group, rows }).is_ok())
    }

    /// Ends the thread after the order that it is at; orders that wait are dropped.
    pub(crate) fn stop(&self) {
        drop(self.orders.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            drop(thread.join());
        }
    }
}

fn work(orders: &Receiver<Order>) {
    niceness::stand_back(niceness::PREPARE);
    for Order { queue, group, rows } in orders {
        // Who has gone, or whose pool has gone, needs nothing prepared.
        if let Some(queue) = queue.upgrade() {
            queue.prepare(&group, rows);
        }
    }
}
