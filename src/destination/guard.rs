//! Which addresses may be connected to.
//!
//! Owns: what kind of address each is, and which kinds the configuration opens. Pure: somebody else resolves names.
//! An IPv6 address that only wraps an IPv4 address is judged as that one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network: write it like 10.1.0.0/16, 192.0.2.7/32 or 2001:db8::/32")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        text.parse().map(Self).map_err(|_| NetworkError(text.to_owned()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What kind of address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// This machine (RFC 1122 section 3.2.1.3, RFC 4291).
    Loopback,
    /// A private network, or one shared with a provider's other customers (RFC 1918, 4193, 6598).
    Private,
    /// The own cable only (RFC 3927, 4291).
    LinkLocal,
    /// Where a cloud tells its machines their secrets.
    Metadata,
    /// Many at once (RFC 5771, 4291).
    Multicast,
    /// No address.
    Unspecified,
    /// Kept for documents, measurements, tunnels or the future (RFC 6890).
    Reserved,
}

impl Why {
    /// Whether the configuration opens this kind as a whole.
    const fn is_private(self) -> bool {
        matches!(self, Self::Loopback | Self::Private)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "this machine itself",
            Self::Private => "in a private network",
            Self::LinkLocal => "link-local",
            Self::Metadata => "where clouds keep their secrets",
            Self::Multicast => "multicast",
            Self::Unspecified => "no address to connect to",
            Self::Reserved => "reserved, and nobody's",
        })
    }
}

/// Why nothing may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An address that the configuration does not open.
    #[error(
        "{address} is {why}: the operator can allow it by `allow = [\"{address}/{}\"]`{}, in [outputs] for broadcasts and in \
         [inputs] for inputs",
        if .address.is_ipv4() { 32 } else { 128 },
        if .why.is_private() { " or `allow_private = true`" } else { "" }
    )]
    Address {
        /// The address, without what wraps it.
        address: IpAddr,
        /// What kind it is.
        why: Why,
    },
    /// The name has no address.
    #[error("the name has no address")]
    None,
}

/// What may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Guard {
    /// Also private networks and this machine.
    pub allow_private: bool,
    /// Also these networks, whatever they are.
    pub allow: Vec<Network>,
}

impl Guard {
    /// The one of a name's addresses to connect to: the first, and none at all if a single one is refused, since who gives
    /// a name such an address has no good in mind, or a mistake in it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn choose(&self, addresses: &[IpAddr]) -> Result<IpAddr, Refused> {
        for address in addresses {
            self.check(*address)?;
        }
        addresses.first().map(IpAddr::to_canonical).ok_or(Refused::None)
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// [`Refused::Address`].
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let inner = unwrapped(address);
        let listed = |address: &IpAddr| self.allow.iter().any(|network| network.0.contains(address));
        match refused(inner) {
            None => Ok(()),
            Some(why) if self.allow_private && why.is_private() => Ok(()),
            Some(_) if listed(&inner) || listed(&address) => Ok(()),
            Some(why) => Err(Refused::Address { address: inner, why }),
        }
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (`::ffff:0:0/96`), compatible (`::/96`, RFC 4291 section
/// 2.5.5), NAT64 (`64:ff9b::/96`, RFC 6052) or 6to4 (`2002::/16`, RFC 3056). Any other address is itself.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h).into(),
        // `::` and `::1` have meanings of their own.
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => v4(g, h).into(),
        [0x2002, high, low, ..] => v4(high, low).into(),
        _ => address,
    }
}

/// Addresses at which clouds answer their own machines: AWS and most others; Alibaba; Azure; Oracle; AWS over IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Why an address is not simply somebody's on the internet; None when it is.
fn refused(address: IpAddr) -> Option<Why> {
    if METADATA.contains(&address) {
        return Some(Why::Metadata);
    }
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

/// The IANA's registry of special addresses (RFC 6890), of which none is reachable globally.
fn refused_v4(address: Ipv4Addr) -> Option<Why> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, 0, 0) if address.is_unspecified() => Why::Unspecified,
        (127, ..) => Why::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Why::Private,
        (169, 254, _) => Why::LinkLocal,
        (224..=239, ..) => Why::Multicast,
        (0 | 240.., ..) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            Why::Reserved
        }
        _ => return None,
    })
}

/// Only `2000::/3` is given out to anybody (IANA), and of that some pieces are not.
fn refused_v6(address: Ipv6Addr) -> Option<Why> {
    let [a, b, ..] = address.segments();
    Some(match a {
        _ if address.is_unspecified() => Why::Unspecified,
        _ if address.is_loopback() => Why::Loopback,
        0xfc00..=0xfdff => Why::Private,
        // Link-local, and the site-local of old.
        0xfe80..=0xfebf => Why::LinkLocal,
        0xfec0..=0xfeff => Why::Private,
        0xff00.. => Why::Multicast,
        // A translator's own prefix, RFC 8215: behind it is what the operator put there.
        0x64 if b == 0xff9b => Why::Private,
        // Teredo and other protocols' own (2001::/23), documents, documents again.
        0x2001 if b < 0x200 || b == 0xdb8 => Why::Reserved,
        0x3fff if b < 0x1000 => Why::Reserved,
        0x2000..=0x3fff => return None,
        _ => Why::Reserved,
    })
}
