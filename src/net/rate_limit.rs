//! Rate limits with token buckets. Pure: time is an argument.
//!
//! Owns: [`TokenBucket`], [`Buckets`], which has one per key, and [`RateLimiter`], whose key is the source. Does not
//! know: what is counted. Data enters as one call per request and leaves as permission or the time to wait. Memory is
//! bounded: buckets that are full again are removed, and at the bound new keys have to wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::time::Timestamp;

/// Most keys remembered at a time.
const SOURCES_MAX: usize = 16_384;
/// Time between two removals of full buckets, and the wait of a new key when the table is full.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(1);

/// A sustained rate and a burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimit {
    /// Tokens per second.
    pub(crate) per_second: f64,
    /// Size of the bucket, in tokens.
    pub(crate) burst: f64,
}

/// The token bucket of one source.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    tokens: f64,
    updated: Timestamp,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn full(limit: RateLimit, now: Timestamp) -> Self {
        Self { tokens: limit.burst, updated: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// The time until the next token is available.
    pub(crate) fn take(&mut self, limit: RateLimit, now: Timestamp) -> Result<(), Duration> {
        self.tokens = self.tokens_at(limit, now);
        self.updated = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / limit.per_second));
        }
        self.tokens -= 1.0;
        Ok(())
    }

    /// Returns a token.
    fn put_back(&mut self, limit: RateLimit, now: Timestamp) {
        self.tokens = (self.tokens_at(limit, now) + 1.0).min(limit.burst);
        self.updated = now;
    }

    fn tokens_at(&self, limit: RateLimit, now: Timestamp) -> f64 {
        (self.tokens + now.since(self.updated).as_secs_f64() * limit.per_second).min(limit.burst)
    }
}

/// One token bucket per key.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    limit: RateLimit,
    buckets: HashMap<K, TokenBucket>,
    /// When full buckets were last removed.
    cleaned: Option<Timestamp>,
}

/// One token bucket per source network.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    buckets: Buckets<IpAddr>,
}

/// The network that counts as one source: an IPv4 address, or the /64 of an IPv6 address, because one host can use all
/// addresses of its /64.
pub(crate) fn source_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl<K: Hash + Eq> Buckets<K> {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let limit = RateLimit { per_second: per_second.into(), burst: burst.into() };
        Self { limit, buckets: HashMap::new(), cleaned: None }
    }

    /// Counts one request of `key`.
    ///
    /// # Errors
    /// The time to wait before the next request.
    pub(crate) fn take(&mut self, key: K, now: Timestamp) -> Result<(), Duration> {
        let limit = self.limit;
        if self.buckets.len() >= SOURCES_MAX && !self.buckets.contains_key(&key) {
            // Spoofed addresses arrive at the rate of datagrams, so the table is not searched for each of them.
            if self.cleaned.is_none_or(|at| now.since(at) >= CLEANUP_INTERVAL) {
                self.buckets.retain(|_, bucket| bucket.tokens_at(limit, now) < limit.burst);
                self.cleaned = Some(now);
            }
            if self.buckets.len() >= SOURCES_MAX {
                return Err(CLEANUP_INTERVAL);
            }
        }
        self.buckets.entry(key).or_insert_with(|| TokenBucket::full(limit, now)).take(limit, now)
    }

    /// Takes back one request of `key` that need not have been counted.
    fn put_back(&mut self, key: &K, now: Timestamp) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.put_back(self.limit, now);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.len()
    }
}

impl RateLimiter {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { buckets: Buckets::new(per_second, burst) }
    }

    /// Counts one request from `address`.
    ///
    /// # Errors
    /// The time to wait before the next request.
    pub(crate) fn take(&mut self, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        self.buckets.take(source_network(address), now)
    }

    /// Takes back one request from `address` that need not have been counted.
    pub(crate) fn put_back(&mut self, address: IpAddr, now: Timestamp) {
        self.buckets.put_back(&source_network(address), now);
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

    #[test]
    fn a_source_may_send_a_burst_and_then_the_sustained_rate() {
        let mut limiter = RateLimiter::new(2, 4);
        for _ in 0..4 {
            assert_eq!(limiter.take(ANN, at(0)), Ok(()));
        }
        assert_eq!(limiter.take(ANN, at(0)), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take(BEN, at(0)), Ok(()), "another source has its own bucket");
        assert!(limiter.take(ANN, at(499)).is_err());
        assert_eq!(limiter.take(ANN, at(1000)), Ok(()));
    }

    #[test]
    fn a_request_that_is_put_back_is_not_counted() {
        let mut limiter = RateLimiter::new(2, 4);
        for _ in 0..100 {
            assert_eq!(limiter.take(ANN, at(0)), Ok(()));
            limiter.put_back(ANN, at(0));
        }
        for _ in 0..100 {
            limiter.put_back(ANN, at(0));
        }
        assert_eq!((0..100).filter(|_| limiter.take(ANN, at(0)).is_ok()).count(), 4, "never more than the burst");
        limiter.put_back(BEN, at(0));
        assert_eq!(limiter.buckets.len(), 1, "an unknown source is not added");
    }

    #[test]
    fn an_ipv6_network_and_an_ipv4_mapped_address_are_one_source() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(source_network(address("2001:db8::1")), source_network(address("2001:db8::9")));
        assert_ne!(source_network(address("2001:db8::1")), source_network(address("2001:db8:0:1::1")));
        assert_eq!(source_network(address("::ffff:192.0.2.1")), ANN);
    }

    #[test]
    fn in_a_full_table_only_new_sources_wait_and_full_buckets_are_removed() {
        let mut limiter = RateLimiter::new(1, 2);
        for host in 0..SOURCES_MAX as u32 {
            assert_eq!(limiter.take(Ipv4Addr::from(0x0a00_0000 + host).into(), at(0)), Ok(()));
        }
        assert_eq!(limiter.take(ANN, at(0)), Err(CLEANUP_INTERVAL));
        assert_eq!(limiter.take(Ipv4Addr::from(0x0a00_0000).into(), at(0)), Ok(()));
        assert_eq!(limiter.take(ANN, at(1000)), Ok(()), "the other sources have sent nothing more");
        assert!(limiter.buckets.len() < 3);
    }

    proptest! {
        #[test]
        fn a_source_never_gets_more_than_the_burst_plus_the_rate(steps in proptest::collection::vec(0u64..400, 1..200)) {
            let mut limiter = RateLimiter::new(2, 4);
            let (mut now, mut taken) = (0, 0u64);
            for step in steps {
                now += step;
                taken += u64::from(limiter.take(ANN, at(now)).is_ok());
                prop_assert!(taken <= 4 + 2 * now / 1000 + 1);
            }
        }
    }
}
