//! What is known of one request for the metrics, whenever and however it ends.

use std::sync::Arc;
use std::time::Instant;

use millrace_core::{Code, Protocol, Reason, Servable};

use super::Front;
use super::account::{Account, Inquiry};
use super::clock::now;
use super::metrics::{Answered, Series, Status};

/// A request on its way. Dropped before it ended, it counts as cancelled: the client has left.
#[derive(Debug)]
pub struct Record<'a> {
    front: &'a Front,
    protocol: Protocol,
    series: Option<Arc<Series>>,
    received: Instant,
    request_bytes: usize,
    is_ended: bool,
    /// What it is told about itself, where it asks.
    account: Option<Box<Account>>,
}

impl<'a> Record<'a> {
    /// A request whose first byte came at `received`.
    pub fn new(front: &'a Front, protocol: Protocol, received: Instant) -> Self {
        Self { front, protocol, series: None, received, request_bytes: 0, is_ended: false, account: None }
    }

    /// When its first byte came.
    pub fn received(&self) -> Instant {
        self.received
    }

    /// What it wants to know about itself; what it wanted before counts no more.
    pub fn inquire(&mut self, inquiry: Option<Box<Inquiry>>) {
        self.account = inquiry.map(|inquiry| Account::begin(inquiry, self.protocol, self.received));
    }

    /// What it will be told about itself.
    pub fn account(&mut self) -> Option<&mut Account> {
        self.account.as_deref_mut()
    }

    /// The same to keep, for whoever tells it.
    pub fn take_account(&mut self) -> Option<Box<Account>> {
        self.account.take()
    }

    /// Its body shows that it is of this protocol, whatever its route is shared with.
    pub fn is_of(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        if let Some(account) = &mut self.account {
            account.is_of(protocol);
        }
    }

    /// It is for this version.
    pub fn found(&mut self, servable: &dyn Servable) {
        self.series = Some(self.front.table.of(servable));
        if let Some(account) = &mut self.account {
            account.found(servable);
        }
    }

    /// Its body, as sent, had so many bytes.
    pub fn carried(&mut self, bytes: usize) {
        self.request_bytes = bytes;
    }

    /// It was answered. Its own bytes and total time are filled in here.
    pub fn answered(mut self, ended: Instant, answered: Answered) {
        self.is_ended = true;
        let total = ended.saturating_duration_since(self.received);
        let answered = Answered { total, request_bytes: self.request_bytes, ..answered };
        self.series().answered(self.protocol, &answered);
    }

    /// It was refused.
    pub fn refused(mut self, status: Status, code: Code, reason: Reason) {
        self.count(status, code, reason);
    }

    fn count(&mut self, status: Status, code: Code, reason: Reason) {
        self.is_ended = true;
        self.front.refusals.count(reason);
        let total = now().saturating_duration_since(self.received);
        self.series().refused(self.protocol, status, code, total, self.request_bytes);
    }

    /// Taken, for a request ends once.
    fn series(&mut self) -> Arc<Series> {
        self.series.take().unwrap_or_else(|| self.front.table.other())
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.count(Status::cancelled(self.protocol), Code::Cancelled, Reason::Cancelled);
        }
    }
}
