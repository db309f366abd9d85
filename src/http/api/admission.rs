//! Limits for joins: their rate per source, and the number of pending ones. Pure: time is an argument.
//!
//! Owns: the rate limiter of joins, and the pending joins, which have not connected yet. Does not know: sessions; a
//! pending join has the name that its owner gives it. In: joins; out: a ticket, or the reason to refuse.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Limits;
use crate::net::rate_limit::{RateLimiter, source_network};
use crate::time::Timestamp;

/// The time to wait if too many joins are pending.
const PENDING_RETRY: Duration = Duration::from_secs(1);

/// Why a join is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The source has exceeded its rate of joins.
    Rate(Duration),
    /// Too many joins of this source are pending.
    PendingOfSource(Duration),
    /// Too many joins of all sources are pending.
    PendingTotal(Duration),
}

/// Identifies an admitted join until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The joins of all sources.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Limits,
    rate: RateLimiter,
    pending: HashMap<Ticket, Pending>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Pending {
    source: IpAddr,
    since: Timestamp,
    /// The session's secret, once the join was answered.
    session: Option<String>,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        let rate = RateLimiter::new(limits.joins_per_second, limits.joins_burst);
        Self { limits, rate, pending: HashMap::new(), next_ticket: 0 }
    }

    /// Uses other limits from now on. Pending joins stay; the rates of all sources start anew.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        let pending = std::mem::take(&mut self.pending);
        *self = Self { pending, next_ticket: self.next_ticket, ..Self::new(limits) };
    }

    /// Counts one join from `address`; the ticket is pending until [`Admission::settle`] or too old.
    pub(super) fn admit(&mut self, address: IpAddr, now: Timestamp) -> Result<Ticket, Refusal> {
        let source = source_network(address);
        let life = Duration::from_secs(self.limits.pending_seconds.into());
        self.pending.retain(|_, pending| now.since(pending.since) < life);
        self.rate.take(source, now).map_err(Refusal::Rate)?;
        if self.pending.len() >= self.limits.pending_total {
            return Err(Refusal::PendingTotal(PENDING_RETRY));
        }
        if self.pending_of(source) >= self.limits.pending_per_address {
            return Err(Refusal::PendingOfSource(PENDING_RETRY));
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pending.insert(ticket, Pending { source, since: now, session: None });
        Ok(ticket)
    }

    /// The join was answered with `session`; it stays pending until that session connects.
    pub(super) fn answered(&mut self, ticket: Ticket, session: &str) {
        if let Some(pending) = self.pending.get_mut(&ticket) {
            pending.session = Some(session.to_owned());
        }
    }

    /// The join has connected, failed or ended.
    pub(super) fn settle(&mut self, ticket: Ticket) {
        self.pending.remove(&ticket);
    }

    /// The answered joins that prevent another join from `address`. The caller checks whether they have connected.
    pub(super) fn blocking(&self, address: IpAddr) -> Vec<(Ticket, String)> {
        let source = source_network(address);
        let full = self.pending.len() >= self.limits.pending_total;
        if !full && self.pending_of(source) < self.limits.pending_per_address {
            return Vec::new();
        }
        let concerned = self.pending.iter().filter(|(_, pending)| full || pending.source == source);
        concerned.filter_map(|(ticket, pending)| Some((*ticket, pending.session.clone()?))).collect()
    }

    fn pending_of(&self, source: IpAddr) -> usize {
        self.pending.values().filter(|pending| pending.source == source).count()
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
    fn a_source_may_join_in_a_burst_and_then_at_the_sustained_rate() {
        let mut admission = admission();
        for _ in 0..4 {
            let ticket = admission.admit(ANN, at(0)).expect("in the burst");
            admission.settle(ticket);
        }
        assert_eq!(admission.admit(ANN, at(0)), Err(Refusal::Rate(Duration::from_millis(500))));
        assert!(admission.admit(BEN, at(0)).is_ok(), "another source has its own bucket");
    }

    #[test]
    fn pending_joins_are_bounded_and_time_out() {
        let mut admission = admission();
        let tickets: Vec<_> = (0..3).map(|_| admission.admit(ANN, at(0)).expect("few")).collect();
        assert!(matches!(admission.admit(ANN, at(1000)), Err(Refusal::PendingOfSource(_))));
        admission.settle(tickets[0]);
        assert!(admission.admit(ANN, at(2000)).is_ok(), "one has connected");
        assert!(matches!(admission.admit(ANN, at(3000)), Err(Refusal::PendingOfSource(_))));
        assert!(admission.admit(ANN, at(15_000)).is_ok(), "the first joins have timed out");
    }

    #[test]
    fn pending_joins_of_all_sources_are_bounded() {
        let mut admission = admission();
        for _ in 0..3 {
            admission.admit(ANN, at(0)).expect("few");
        }
        for _ in 0..2 {
            admission.admit(BEN, at(0)).expect("few");
        }
        assert!(matches!(admission.admit(BEN, at(0)), Err(Refusal::PendingTotal(_))));
    }

    #[test]
    fn only_blocking_joins_are_listed() {
        let mut admission = admission();
        let tickets: Vec<_> = (0..3).map(|_| admission.admit(ANN, at(0)).expect("few")).collect();
        admission.answered(tickets[1], "secret");
        assert_eq!(admission.blocking(ANN), [(tickets[1], "secret".to_owned())]);
        assert!(admission.blocking(BEN).is_empty());
        admission.settle(tickets[0]);
        assert!(admission.blocking(ANN).is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let mut admission = admission();
        for host in 1..=3 {
            admission.admit(format!("2001:db8::{host}").parse().expect("an address"), at(0)).expect("few");
        }
        assert!(admission.admit("2001:db8::9".parse().expect("an address"), at(0)).is_err());
    }

    proptest! {
        #[test]
        fn the_number_of_pending_joins_is_bounded(hosts in proptest::collection::vec(any::<u32>(), 1..300)) {
            let mut admission = admission();
            for host in hosts {
                let _ = admission.admit(Ipv4Addr::from(host).into(), at(0));
            }
            prop_assert!(admission.pending.len() <= 5);
        }
    }
}
