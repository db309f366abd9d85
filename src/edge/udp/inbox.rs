//! The datagrams waiting for one connection: a bounded queue with a waker.
//!
//! Owns: the bound and the wake-up. Does not know: whose it is. The receiving task pushes, the connection's driver pops.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Datagrams a connection may leave unread: about a second of a camera at 5 Mbit/s. Then the newest are dropped.
const INBOX_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(SocketAddr, Box<[u8]>)>,
    waker: Option<Waker>,
}

impl Inbox {
    /// Queues a datagram; false when the inbox is full and it was dropped.
    pub(super) fn push(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        let mut state = self.0.lock();
        if state.waiting.len() == INBOX_MAX {
            return false;
        }
        state.waiting.push_back((from, datagram.into()));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Takes the oldest datagram, or arranges to be woken by the next.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<(SocketAddr, Box<[u8]>)> {
        let mut state = self.0.lock();
        if let Some(datagram) = state.waiting.pop_front() {
            return Poll::Ready(datagram);
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
            assert!(inbox.push(from, &number.to_be_bytes()));
        }
        assert!(!inbox.push(from, b"one too many"));
        let cx = Context::from_waker(Waker::noop());
        for number in 0..INBOX_MAX {
            assert_eq!(inbox.poll(&cx), Poll::Ready((from, number.to_be_bytes().into())));
        }
        assert_eq!(inbox.poll(&cx), Poll::Pending);
    }
}
