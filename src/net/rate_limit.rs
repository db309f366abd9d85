//! How much one caller may do in a time: a token bucket for each. Pure: time is an argument.
//!
//! Owns: who counts as one caller, and the buckets. Does not know: what is counted. Bounded: buckets that are full again
//! are forgotten, and at the bound the newcomer waits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::time::Timestamp;

/// Most callers remembered at a time.
const CALLERS_MAX: usize = 16_384;
/// When to come back if too many others have to be remembered; they are looked through no more often.
const CROWDED: Duration = Duration::from_secs(1);

/// So many a second in the long run, so many at once.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    burst: f64,
    buckets: HashMap<IpAddr, Bucket>,
    /// When those who may be forgotten were last looked for.
    looked: Option<Timestamp>,
}

/// What a caller may still do at once, at a time.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Timestamp,
}

/// Whoever owns an address owns all it can reach by choosing: an IPv6 network of 64 bits counts as one caller.
pub(crate) fn caller_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl Rate {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: per_second.into(), burst: burst.into(), buckets: HashMap::new(), looked: None }
    }

    /// Counts one; the error says how long to wait before the next.
    pub(crate) fn take(&mut self, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        let caller = caller_of(address);
        let (rate, burst) = (self.per_second, self.burst);
        let refilled = move |bucket: &Bucket| (bucket.left + now.since(bucket.at).as_secs_f64() * rate).min(burst);
        if self.buckets.len() >= CALLERS_MAX && !self.buckets.contains_key(&caller) {
            // Forged addresses come as fast as datagrams do.
            if self.looked.is_none_or(|at| now.since(at) >= CROWDED) {
                self.buckets.retain(|_, bucket| refilled(bucket) < burst);
                self.looked = Some(now);
            }
            if self.buckets.len() >= CALLERS_MAX {
                return Err(CROWDED);
            }
        }
        let bucket = self.buckets.entry(caller).or_insert(Bucket { left: burst, at: now });
        bucket.left = refilled(bucket);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / rate));
        }
        bucket.left -= 1.0;
        Ok(())
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
    fn a_burst_is_allowed_and_then_the_rate() {
        let mut rate = Rate::new(2, 4);
        for _ in 0..4 {
            assert_eq!(rate.take(ANN, at(0)), Ok(()));
        }
        assert_eq!(rate.take(ANN, at(0)), Err(Duration::from_millis(500)));
        assert_eq!(rate.take(BEN, at(0)), Ok(()), "another caller is not concerned");
        assert!(rate.take(ANN, at(499)).is_err());
        assert_eq!(rate.take(ANN, at(1000)), Ok(()));
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_address_are_one_caller() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(caller_of(address("2001:db8::1")), caller_of(address("2001:db8::9")));
        assert_ne!(caller_of(address("2001:db8::1")), caller_of(address("2001:db8:0:1::1")));
        assert_eq!(caller_of(address("::ffff:192.0.2.1")), ANN);
    }

    #[test]
    fn at_the_bound_only_newcomers_wait_and_full_buckets_are_forgotten() {
        let mut rate = Rate::new(1, 2);
        for host in 0..CALLERS_MAX as u32 {
            assert_eq!(rate.take(Ipv4Addr::from(0x0a00_0000 + host).into(), at(0)), Ok(()));
        }
        assert_eq!(rate.take(ANN, at(0)), Err(CROWDED));
        assert_eq!(rate.take(Ipv4Addr::from(0x0a00_0000).into(), at(0)), Ok(()));
        assert_eq!(rate.take(ANN, at(1000)), Ok(()), "the others have not asked again");
        assert!(rate.buckets.len() < 3);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate(steps in proptest::collection::vec(0u64..400, 1..200)) {
            let mut rate = Rate::new(2, 4);
            let (mut now, mut taken) = (0, 0u64);
            for step in steps {
                now += step;
                taken += u64::from(rate.take(ANN, at(now)).is_ok());
                prop_assert!(taken <= 4 + 2 * now / 1000 + 1);
            }
        }
    }
}
