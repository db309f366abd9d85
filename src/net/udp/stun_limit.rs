//! How often the port answers plain STUN requests.
//!
//! Owns: the count of each address bucket. Does not know: sockets; the second is an argument.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Plain STUN answers per second and address bucket.
const STUN_ANSWERS_PER_SECOND: u32 = 20;
/// Buckets of the plain STUN limit; addresses share them by hash.
const STUN_BUCKETS: usize = 512;

/// Counts plain STUN answers per second and address bucket, without locks; wrong by a few under a race, which is fine.
pub(super) struct StunLimit(Vec<AtomicU64>);

impl Default for StunLimit {
    fn default() -> Self {
        Self((0..STUN_BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl StunLimit {
    /// Whether this address may be answered in this second.
    pub(super) fn allows(&self, ip: IpAddr, second: u64) -> bool {
        // An IPv6 host has a whole /64 to ask from.
        let host = match ip {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let bucket = &self.0[(host.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as usize % STUN_BUCKETS];
        // The second stands in the upper half, the count in the lower.
        let (then, count) = {
            let value = bucket.load(Ordering::Relaxed);
            (value >> 32, value as u32)
        };
        let count = if then == second & 0xffff_ffff { count } else { 0 };
        bucket.store((second << 32) | u64::from(count.saturating_add(1)), Ordering::Relaxed);
        count < STUN_ANSWERS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_answered_so_often_a_second() {
        let limit = StunLimit::default();
        let ip = IpAddr::from([192, 0, 2, 1]);
        let allowed = (0..100).filter(|_| limit.allows(ip, 1_000)).count();
        assert_eq!(allowed, STUN_ANSWERS_PER_SECOND as usize);
        assert!(limit.allows(ip, 1_001), "the next second is another");
    }
}
