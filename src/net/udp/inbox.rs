//! Received datagrams that wait for a connection, or for all connections of a thread: a bounded queue with a waker.
//!
//! Owns: the bound and the wake-up. Does not know: connections. The receiver pushes a batch at a time, with one
//! lock and at most one wake-up; the thread that serves the connections polls.

use std::collections::VecDeque;
use std::net::SocketAddr;
#[cfg(test)]
use std::task::Poll;
use std::task::{Context, Waker};

use bytes::BytesMut;
use parking_lot::Mutex;

use super::Key;

/// Datagrams that may wait for one connection: about a second of a camera at 5 Mbit/s. At the bound the newest are
/// dropped.
const INBOX_MAX: usize = 1024;

/// A received datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// The connection it belongs to.
    pub(crate) key: Key,
    /// The address it came from.
    pub(crate) from: SocketAddr,
    /// Its bytes; it may be decrypted in place.
    pub(crate) datagram: BytesMut,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Received>,
    waker: Option<Waker>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new(INBOX_MAX)
    }
}

impl Inbox {
    /// An inbox with room for `max` datagrams.
    pub(crate) fn new(max: usize) -> Self {
        Self { state: Mutex::default(), max }
    }

    /// Queues datagrams, in order, and leaves `batch` empty; returns how many were dropped because the inbox is full.
    pub(super) fn push(&self, batch: &mut Vec<Received>) -> usize {
        let mut state = self.state.lock();
        let room = self.max - state.waiting.len();
        let dropped = batch.len().saturating_sub(room);
        state.waiting.extend(batch.drain(..).take(room));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        dropped
    }

    /// Whether no datagram waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().waiting.is_empty()
    }

    /// Moves up to `max` datagrams, the oldest first, behind those in `taken`. If no more wait, registers the waker for
    /// the next one.
    pub(crate) fn take(&self, cx: &Context<'_>, max: usize, taken: &mut VecDeque<Received>) {
        let mut state = self.state.lock();
        let count = max.min(state.waiting.len());
        taken.extend(state.waiting.drain(..count));
        if state.waiting.is_empty() {
            state.waker = Some(cx.waker().clone());
        }
    }

    /// Takes the oldest datagram, or registers the waker for the next one.
    #[cfg(test)]
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Received> {
        let mut state = self.state.lock();
        if let Some(received) = state.waiting.pop_front() {
            return Poll::Ready(received);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    fn received(number: usize) -> Received {
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        Received { key: 7, from, datagram: BytesMut::from(&number.to_be_bytes()[..]) }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_inbox_is_bounded_and_keeps_the_order() {
        let inbox = Inbox::default();
        let mut batch: Vec<Received> = (0..INBOX_MAX - 1).map(received).collect();
        assert_eq!(inbox.push(&mut batch), 0);
        batch.extend((INBOX_MAX - 1..INBOX_MAX + 2).map(received));
        assert_eq!((inbox.push(&mut batch), batch.len()), (2, 0), "the newest are dropped");
        let cx = Context::from_waker(Waker::noop());
        for number in 0..INBOX_MAX {
            assert_eq!(inbox.poll(&cx), Poll::Ready(received(number)));
        }
        assert_eq!(inbox.poll(&cx), Poll::Pending);
    }

    #[test]
    fn datagrams_are_taken_in_order_and_a_number_at_a_time() {
        let (inbox, cx, mut taken) = (Inbox::default(), Context::from_waker(Waker::noop()), VecDeque::new());
        inbox.push(&mut (0..5).map(received).collect());
        inbox.take(&cx, 3, &mut taken);
        assert_eq!(taken.len(), 3);
        inbox.take(&cx, 3, &mut taken);
        assert!(taken.into_iter().eq((0..5).map(received)) && inbox.is_empty());
    }

    #[test]
    fn a_batch_wakes_once() {
        let (inbox, wakes) = (Inbox::default(), Arc::new(Wakes::default()));
        let waker = Waker::from(Arc::clone(&wakes));
        assert_eq!(inbox.poll(&Context::from_waker(&waker)), Poll::Pending);
        inbox.push(&mut (0..50).map(received).collect());
        inbox.push(&mut (50..60).map(received).collect());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }
}
