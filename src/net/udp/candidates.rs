//! Our ICE candidates.
//!
//! Owns: the choice of advertised addresses, and the format (RFC 8839) and priority (RFC 8445, RFC 6544) of candidates.
//! Does not know: sockets. Bound and public addresses enter, advertised addresses and lines of SDP leave.

use std::net::IpAddr;

/// Addresses advertised at most; a client checks each of them.
const ADDRESSES_MAX: usize = 8;
/// Type preference of host candidates (RFC 8445 section 5.1.2.2).
const HOST: u32 = 126;
/// Type preference of TCP host candidates: below all UDP candidates but relayed ones (RFC 6544 section 4.2), as in
/// browsers.
const HOST_TCP: u32 = 90;
/// Direction preference of passive host candidates (RFC 6544 section 4.2), in the high bits of the local preference.
const PASSIVE: u32 = 4 << 13;

/// The advertised addresses: `public` if given, else those bound.
pub(super) fn addresses(bound: &[IpAddr], public: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = public.to_vec();
    if addresses.is_empty() {
        let any = bound.iter().any(IpAddr::is_unspecified);
        addresses = if any { reachable(&interface_addresses(), bound) } else { bound.to_vec() };
    }
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// Candidates of these addresses without `a=`: UDP first, then TCP if it is served.
pub(super) fn candidates(addresses: &[IpAddr], port: u16, tcp: bool) -> Vec<String> {
    let count = addresses.len();
    let udp = addresses.iter().enumerate().map(|(at, ip)| {
        let priority = priority(HOST, 65_535 - at as u32);
        format!("candidate:{} 1 udp {priority} {ip} {port} typ host", at + 1)
    });
    let tcp = addresses.iter().enumerate().filter(|_| tcp).map(|(at, ip)| {
        let priority = priority(HOST_TCP, PASSIVE + 8_191 - at as u32);
        format!("candidate:{} 1 tcp {priority} {ip} {port} typ host tcptype passive", count + at + 1)
    });
    udp.chain(tcp).collect()
}

/// The priority of a candidate of component 1 (RFC 8445 section 5.1.2.1).
const fn priority(kind: u32, local: u32) -> u32 {
    (kind << 24) + (local << 8) + 255
}

/// The addresses of a machine that others may reach, the best first: of the bound families, not link-local, and
/// loopback only if there is no other.
fn reachable(all: &[IpAddr], bound: &[IpAddr]) -> Vec<IpAddr> {
    let link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let is_bound = |ip: &IpAddr| bound.iter().any(|bound| bound.is_ipv4() == ip.is_ipv4());
    let usable = all.iter().filter(|ip| is_bound(ip) && !link_local(ip) && !ip.is_unspecified() && !ip.is_multicast());
    let mut addresses: Vec<IpAddr> = usable.copied().collect();
    addresses.sort_by_key(|ip| (ip.is_loopback(), is_private(ip), ip.is_ipv6(), *ip));
    addresses.dedup();
    if addresses.iter().any(|ip| !ip.is_loopback()) {
        addresses.retain(|ip| !ip.is_loopback());
    }
    addresses
}

fn is_private(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

fn interface_addresses() -> Vec<IpAddr> {
    let interfaces = rtc::shared::ifaces::ifaces().unwrap_or_default();
    interfaces.iter().filter_map(|interface| Some(interface.addr?.ip())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().expect("an address")).collect()
    }

    #[test]
    fn each_address_is_advertised_for_udp_and_after_all_of_them_for_tcp() {
        let public = ips(&["203.0.113.5", "2001:db8::5"]);
        let lines = candidates(&addresses(&ips(&["192.0.2.1"]), &public), 8189, true);
        let expected = [
            "candidate:1 1 udp 2130706431 203.0.113.5 8189 typ host",
            "candidate:2 1 udp 2130706175 2001:db8::5 8189 typ host",
            "candidate:3 1 tcp 1520435199 203.0.113.5 8189 typ host tcptype passive",
            "candidate:4 1 tcp 1520434943 2001:db8::5 8189 typ host tcptype passive",
        ];
        assert_eq!(lines, expected);
        assert_eq!(
            candidates(&addresses(&ips(&["192.0.2.1"]), &[]), 9, false),
            ["candidate:1 1 udp 2130706431 192.0.2.1 9 typ host"]
        );
    }

    #[test]
    fn of_many_addresses_those_are_advertised_that_others_may_reach() {
        let all = ips(&[
            "127.0.0.1",
            "::1",
            "10.0.0.7",
            "fe80::1",
            "169.254.3.4",
            "fd00::7",
            "198.51.100.7",
            "2001:db8::7",
            "10.0.0.7",
        ]);
        let both = ips(&["0.0.0.0", "::"]);
        assert_eq!(reachable(&all, &both), ips(&["198.51.100.7", "2001:db8::7", "10.0.0.7", "fd00::7"]));
        assert_eq!(reachable(&all, &ips(&["::"])), ips(&["2001:db8::7", "fd00::7"]));
        assert_eq!(reachable(&ips(&["127.0.0.1", "::1", "fe80::1"]), &both), ips(&["127.0.0.1", "::1"]));
    }
}
