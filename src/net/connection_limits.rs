//! How many connections there may be: of all, of one address, and of those that have not shown yet what they are for.
//!
//! Owns: who has how many. Does not know: what a connection is for, when it ends. A [`Place`] is given back when it is dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::rate_limit::source_network;
use crate::metrics::{Counter, Gauge};

/// The most connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// From one address.
    pub(crate) per_address: usize,
    /// That have not been [settled](Place::settle) yet.
    pub(crate) pending: usize,
    /// In all.
    pub(crate) total: usize,
}

/// All places for connections of one kind.
#[derive(Debug)]
pub(crate) struct Places {
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

impl Places {
    /// Nobody has a place yet; `open` tells how many have one, `refused` how many got none.
    pub(crate) fn new(limits: Limits, open: Gauge, refused: Counter) -> Arc<Self> {
        Arc::new(Self { limits, open, refused, taken: Mutex::default() })
    }

    /// A place for a connection from this address; None when there are too many.
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
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
        Some(Place { places: Arc::clone(self), ip, pending: true })
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    ip: IpAddr,
    pending: bool,
}

impl Place {
    /// Whether nobody has said yet what the connection is for.
    pub(crate) const fn is_pending(&self) -> bool {
        self.pending
    }

    /// The connection has shown what it is for.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.places.taken.lock().pending -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.settle();
        let mut taken = self.places.taken.lock();
        taken.total -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.ip) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.ip);
            }
        }
        self.places.open.dec();
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
    fn places_are_limited_in_each_way_and_come_back() {
        let (open, refused) = (Gauge::default(), Counter::default());
        let places = Places::new(LIMITS, open.clone(), refused.clone());
        let take = |number: u32| places.take(IpAddr::from(number.to_be_bytes()));
        let mut taken: Vec<_> = (0..3).filter_map(|_| places.take(ip("2001:db8::1"))).collect();
        assert!(places.take(ip("2001:db8::2")).is_none(), "of the same /64");
        taken.push(places.take(ip("2001:db8:1::1")).expect("of another"));
        taken.extend(take(1));
        assert!(take(2).is_none(), "too many are pending");
        taken.iter_mut().for_each(Place::settle);
        taken.iter_mut().for_each(Place::settle);
        taken.extend((2..5).filter_map(take));
        assert_eq!((taken.len(), open.get()), (8, 8));
        assert!(take(9).is_none(), "in all");
        assert_eq!(refused.get(), 3);
        drop(taken);
        let state = places.taken.lock();
        assert_eq!((state.total, state.pending, state.by_address.len(), open.get()), (0, 0, 0, 0));
    }

    #[test]
    fn an_ipv4_address_in_the_clothes_of_ipv6_is_the_same() {
        let places = Places::new(LIMITS, Gauge::default(), Counter::default());
        let _taken: Vec<_> = (0..3).filter_map(|_| places.take(ip("192.0.2.1"))).collect();
        assert!(places.take(ip("::ffff:192.0.2.1")).is_none());
    }
}
