//! The datagrams waiting for a connection, or for all connections of a thread: a bounded queue with a waker.
//!
//! Owns: the bound and the wake-up. Does not know: what connections are. The receiving task pushes; a connection's driver
//! or a thread that serves many pops.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::Key;

/// Datagrams one connection may leave unread: about a second of a camera at 5 Mbit/s. Then the newest are dropped.
const INBOX_MAX: usize = 1024;

/// A datagram, whose it is and where it came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) key: Key,
    pub(crate) from: SocketAddr,
    pub(crate) datagram: Box<[u8]>,
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
    /// One for so many datagrams.
    pub(crate) fn new(max: usize) -> Self {
        Self { state: Mutex::default(), max }
    }

    /// Queues a datagram; false when the inbox is full and it was dropped.
    pub(crate) fn push(&self, key: Key, from: SocketAddr, datagram: &[u8]) -> bool {
        let mut state = self.state.lock();
        if state.waiting.len() == self.max {
            return false;
        }
        state.waiting.push_back(Received { key, from, datagram: datagram.into() });
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().waiting.is_empty()
    }

    /// Takes the oldest datagram, or arranges to be woken by the next.
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
    use super::*;

    #[test]
    fn it_is_bounded_and_in_order() {
        let inbox = Inbox::default();
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        for number in 0..INBOX_MAX {
            assert!(inbox.push(7, from, &number.to_be_bytes()));
        }
        assert!(!inbox.push(7, from, b"one too many"));
        let cx = Context::from_waker(Waker::noop());
        for number in 0..INBOX_MAX {
            let received = Received { key: 7, from, datagram: number.to_be_bytes().into() };
            assert_eq!(inbox.poll(&cx), Poll::Ready(received));
        }
        assert_eq!(inbox.poll(&cx), Poll::Pending);
    }
}
