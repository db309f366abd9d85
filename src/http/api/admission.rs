//! How many joins one address may ask for, and how many may be half done. Pure: time is an argument.
//!
//! Owns: the rate of joins, and the joins that have not connected yet. Does not know: sessions; a pending join is whatever
//! its owner calls it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Limits;
use crate::net::rate_limit::{Rate, caller_of};
use crate::time::Timestamp;

/// When to come back if the joins before one's own have to connect first.
const PENDING_RETRY: Duration = Duration::from_secs(1);

/// Why a join is not admitted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many joins from this address in a short time.
    Rate(Duration),
    /// Too many joins of this address have not connected yet.
    PendingHere(Duration),
    /// Too many joins of everybody have not connected yet.
    PendingAll(Duration),
}

/// Names one admitted join until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Who joins how often.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Limits,
    rate: Rate,
    pending: HashMap<Ticket, Pending>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Pending {
    address: IpAddr,
    since: Timestamp,
    /// The session, once the join was answered.
    session: Option<String>,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        let rate = Rate::new(limits.joins_per_second, limits.joins_burst);
        Self { limits, rate, pending: HashMap::new(), next_ticket: 0 }
    }

    /// Counts one join from `address`; the ticket is pending until [`Admission::settle`] or too old.
    pub(super) fn admit(&mut self, address: IpAddr, now: Timestamp) -> Result<Ticket, Refusal> {
        let address = caller_of(address);
        let life = Duration::from_secs(self.limits.pending_seconds.into());
        self.pending.retain(|_, pending| now.since(pending.since) < life);
        self.rate.take(address, now).map_err(Refusal::Rate)?;
        if self.pending.len() >= self.limits.pending_total {
            return Err(Refusal::PendingAll(PENDING_RETRY));
        }
        if self.pending.values().filter(|pending| pending.address == address).count() >= self.limits.pending_per_address
        {
            return Err(Refusal::PendingHere(PENDING_RETRY));
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pending.insert(ticket, Pending { address, since: now, session: None });
        Ok(ticket)
    }

    /// The join was answered with `session`; it stays pending until that connects.
    pub(super) fn answered(&mut self, ticket: Ticket, session: &str) {
        if let Some(pending) = self.pending.get_mut(&ticket) {
            pending.session = Some(session.to_owned());
        }
    }

    /// The join connected, failed or is over.
    pub(super) fn settle(&mut self, ticket: Ticket) {
        self.pending.remove(&ticket);
    }

    /// The answered joins that stand in the way of one more from `address`: worth a look whether they have connected.
    pub(super) fn in_the_way(&self, address: IpAddr) -> Vec<(Ticket, String)> {
        let address = caller_of(address);
        let full = self.pending.len() >= self.limits.pending_total;
        let here = self.pending.values().filter(|pending| pending.address == address).count();
        if !full && here < self.limits.pending_per_address {
            return Vec::new();
        }
        let concerned = self.pending.iter().filter(|(_, pending)| full || pending.address == address);
        concerned.filter_map(|(ticket, pending)| Some((*ticket, pending.session.clone()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const ANN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const BEN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    fn admission() -> Admission {
        Admission::new(Limits {
            joins_per_second: 2,
            joins_burst: 4,
            pending_per_address: 3,
            pending_total: 5,
            pending_seconds: 15,
            ..Limits::default()
        })
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let mut admission = admission();
        for _ in 0..4 {
            let ticket = admission.admit(ANN, at(0)).expect("in the burst");
            admission.settle(ticket);
        }
        assert_eq!(admission.admit(ANN, at(0)), Err(Refusal::Rate(Duration::from_millis(500))));
        assert!(admission.admit(BEN, at(0)).is_ok(), "another address is not concerned");
    }

    #[test]
    fn half_done_joins_are_bounded_and_time_out() {
        let mut admission = admission();
        let tickets: Vec<_> = (0..3).map(|_| admission.admit(ANN, at(0)).expect("few")).collect();
        assert!(matches!(admission.admit(ANN, at(1000)), Err(Refusal::PendingHere(_))));
        admission.settle(tickets[0]);
        assert!(admission.admit(ANN, at(2000)).is_ok(), "one has connected");
        assert!(matches!(admission.admit(ANN, at(3000)), Err(Refusal::PendingHere(_))));
        assert!(admission.admit(ANN, at(15_000)).is_ok(), "the first ones are too old to count");
    }

    #[test]
    fn everybody_together_is_bounded() {
        let mut admission = admission();
        for _ in 0..3 {
            admission.admit(ANN, at(0)).expect("few");
        }
        for _ in 0..2 {
            admission.admit(BEN, at(0)).expect("few");
        }
        assert!(matches!(admission.admit(BEN, at(0)), Err(Refusal::PendingAll(_))));
    }

    #[test]
    fn only_joins_in_the_way_are_looked_at() {
        let mut admission = admission();
        let tickets: Vec<_> = (0..3).map(|_| admission.admit(ANN, at(0)).expect("few")).collect();
        admission.answered(tickets[1], "secret");
        assert_eq!(admission.in_the_way(ANN), [(tickets[1], "secret".to_owned())]);
        assert!(admission.in_the_way(BEN).is_empty());
        admission.settle(tickets[0]);
        assert!(admission.in_the_way(ANN).is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_caller() {
        let mut admission = admission();
        for host in 1..=3 {
            admission.admit(format!("2001:db8::{host}").parse().expect("an address"), at(0)).expect("few");
        }
        assert!(admission.admit("2001:db8::9".parse().expect("an address"), at(0)).is_err());
    }

    proptest! {
        #[test]
        fn memory_is_bounded(hosts in proptest::collection::vec(any::<u32>(), 1..300)) {
            let mut admission = admission();
            for host in hosts {
                let _ = admission.admit(Ipv4Addr::from(host).into(), at(0));
            }
            prop_assert!(admission.pending.len() <= 5);
        }
    }
}
