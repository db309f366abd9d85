//! Connection limits: in total, per source network, and of connections that are not authenticated yet.
//!
//! Owns: the counts. Does not know: protocols. An address enters, a [`Permit`] leaves, which is returned when it is
//! dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::rate_limit::source_network;
use crate::metrics::{Counter, Gauge};

/// The limits, in connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of one source network.
    pub(crate) per_address: usize,
    /// Not [settled](Permit::settle) yet.
    pub(crate) pending: usize,
    /// In total.
    pub(crate) total: usize,
}

/// Limits the connections of one kind.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    limits: Limits,
    open: Gauge,
    refused: Counter,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    pending: usize,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl ConnectionLimiter {
    /// A limiter without connections. `open` counts permits that are held, `refused` refusals.
    pub(crate) fn new(limits: Limits, open: Gauge, refused: Counter) -> Arc<Self> {
        Arc::new(Self { limits, open, refused, taken: Mutex::default() })
    }

    /// A permit for a connection from this address; None if a limit is reached.
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Permit> {
        let Limits { per_address, pending, total } = self.limits;
        let ip = source_network(ip);
        let mut taken = self.taken.lock();
        let here = taken.by_address.get(&ip).copied().unwrap_or_default();
        if here >= per_address || taken.pending >= pending || taken.total >= total {
            self.refused.inc();
            return None;
        }
        taken.by_address.insert(ip, here + 1);
        taken.pending += 1;
        taken.total += 1;
        self.open.inc();
        Some(Permit { limiter: Arc::clone(self), ip, pending: true })
    }
}

/// The permit of one connection.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Arc<ConnectionLimiter>,
    ip: IpAddr,
    pending: bool,
}

impl Permit {
    /// Whether the connection is not settled yet.
    pub(crate) const fn is_pending(&self) -> bool {
        self.pending
    }

    /// The connection is authenticated: it no longer counts as pending.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.limiter.taken.lock().pending -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle();
        let mut taken = self.limiter.taken.lock();
        taken.total -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.ip) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.ip);
            }
        }
        self.limiter.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { per_address: 3, pending: 5, total: 8 };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_limit_applies_and_permits_are_returned() {
        let (open, refused) = (Gauge::default(), Counter::default());
        let limiter = ConnectionLimiter::new(LIMITS, open.clone(), refused.clone());
        let take = |number: u32| limiter.take(IpAddr::from(number.to_be_bytes()));
        let mut taken: Vec<_> = (0..3).filter_map(|_| limiter.take(ip("2001:db8::1"))).collect();
        assert!(limiter.take(ip("2001:db8::2")).is_none(), "in the same /64");
        taken.push(limiter.take(ip("2001:db8:1::1")).expect("of another"));
        taken.extend(take(1));
        assert!(take(2).is_none(), "too many are pending");
        taken.iter_mut().for_each(Permit::settle);
        taken.iter_mut().for_each(Permit::settle);
        taken.extend((2..5).filter_map(take));
        assert_eq!((taken.len(), open.get()), (8, 8));
        assert!(take(9).is_none(), "in all");
        assert_eq!(refused.get(), 3);
        drop(taken);
        let state = limiter.taken.lock();
        assert_eq!((state.total, state.pending, state.by_address.len(), open.get()), (0, 0, 0, 0));
    }

    #[test]
    fn an_ipv4_mapped_address_counts_as_ipv4() {
        let limiter = ConnectionLimiter::new(LIMITS, Gauge::default(), Counter::default());
        let _taken: Vec<_> = (0..3).filter_map(|_| limiter.take(ip("192.0.2.1"))).collect();
        assert!(limiter.take(ip("::ffff:192.0.2.1")).is_none());
    }
}
