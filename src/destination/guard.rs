//! The destination guard: which IP addresses the server may connect to (protection against SSRF).
//!
//! Owns: the classification of addresses, and the exceptions of the configuration. Does not know: names; the caller
//! resolves them. In: addresses. Out: the address to connect to, or [`GuardError`]. An IPv6 address that embeds an IPv4
//! address is classified as that IPv4 address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text that is not a network in CIDR notation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network: write it like 10.1.0.0/16, 192.0.2.7/32 or 2001:db8::/32")]
pub struct NetworkError(String);

impl Network {
    /// Whether the address is in the network; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

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

/// Kinds of addresses that are refused by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// This machine (RFC 1122 section 3.2.1.3, RFC 4291).
    Loopback,
    /// A private network, or the shared address space of a provider (RFC 1918, 4193, 6598).
    Private,
    /// Valid on one link only (RFC 3927, 4291).
    LinkLocal,
    /// The metadata service of a cloud, which hands out credentials.
    Metadata,
    /// A multicast group (RFC 5771, 4291).
    Multicast,
    /// `0.0.0.0` or `::`.
    Unspecified,
    /// Reserved for documentation, benchmarks, tunnels or future use (RFC 6890).
    Reserved,
}

impl AddressKind {
    /// Whether `allow_private` permits this kind.
    const fn is_private(self) -> bool {
        matches!(self, Self::Loopback | Self::Private)
    }
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "in a private network",
            Self::LinkLocal => "link-local",
            Self::Metadata => "the metadata service of a cloud",
            Self::Multicast => "a multicast address",
            Self::Unspecified => "the unspecified address",
            Self::Reserved => "a reserved address",
        })
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// An address that the configuration does not allow.
    #[error(
        "{address} is {kind}: the operator can allow it by `allow = [\"{address}/{}\"]`{}, in [outputs] for broadcasts \
         and in [inputs] for inputs",
        if .address.is_ipv4() { 32 } else { 128 },
        if .kind.is_private() { " or `allow_private = true`" } else { "" }
    )]
    Address {
        /// The address; the embedded one for an IPv6 address that embeds IPv4.
        address: IpAddr,
        /// Its kind.
        kind: AddressKind,
    },
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
}

/// The addresses that may be connected to: all public ones, and these exceptions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Guard {
    /// Also allow private networks and this machine.
    pub allow_private: bool,
    /// Also allow these networks, of any kind.
    pub allow: Vec<Network>,
}

impl Guard {
    /// Chooses the address of a resolved name to connect to: the first. A name with both allowed and refused addresses
    /// is an attack or a configuration error, so one refused address refuses the name.
    ///
    /// # Errors
    /// [`GuardError`] when an address is refused or there is none.
    pub fn choose(&self, addresses: &[IpAddr]) -> Result<IpAddr, GuardError> {
        for address in addresses {
            self.check(*address)?;
        }
        addresses.first().map(IpAddr::to_canonical).ok_or(GuardError::NoAddress)
    }

    /// Checks whether an address may be connected to.
    ///
    /// # Errors
    /// [`GuardError::Address`] when it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), GuardError> {
        let inner = embedded_ipv4(address);
        let listed = |address: &IpAddr| self.allow.iter().any(|network| network.0.contains(address));
        match classify(inner) {
            None => Ok(()),
            Some(kind) if self.allow_private && kind.is_private() => Ok(()),
            Some(_) if listed(&inner) || listed(&address) => Ok(()),
            Some(kind) => Err(GuardError::Address { address: inner, kind }),
        }
    }
}

/// The IPv4 address embedded in an IPv6 address: mapped (`::ffff:0:0/96`), compatible (`::/96`, RFC 4291 section
/// 2.5.5), NAT64 (`64:ff9b::/96`, RFC 6052) or 6to4 (`2002::/16`, RFC 3056). Other addresses are returned unchanged.
fn embedded_ipv4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h).into(),
        // `::` and `::1` are the unspecified and the loopback address.
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => v4(g, h).into(),
        [0x2002, high, low, ..] => v4(high, low).into(),
        _ => address,
    }
}

/// Metadata services: AWS and most other clouds; Alibaba; Azure; Oracle; AWS over IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The kind of a special address; None for a public unicast address.
fn classify(address: IpAddr) -> Option<AddressKind> {
    if METADATA.contains(&address) {
        return Some(AddressKind::Metadata);
    }
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

/// The IANA IPv4 special-purpose address registry (RFC 6890).
fn classify_v4(address: Ipv4Addr) -> Option<AddressKind> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, 0, 0) if address.is_unspecified() => AddressKind::Unspecified,
        (127, ..) => AddressKind::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => AddressKind::Private,
        (169, 254, _) => AddressKind::LinkLocal,
        (224..=239, ..) => AddressKind::Multicast,
        (0 | 240.., ..) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            AddressKind::Reserved
        }
        _ => return None,
    })
}

/// IANA assigns global unicast addresses from `2000::/3` only, except some special-purpose blocks in it.
fn classify_v6(address: Ipv6Addr) -> Option<AddressKind> {
    let [a, b, ..] = address.segments();
    Some(match a {
        _ if address.is_unspecified() => AddressKind::Unspecified,
        _ if address.is_loopback() => AddressKind::Loopback,
        0xfc00..=0xfdff => AddressKind::Private,
        0xfe80..=0xfebf => AddressKind::LinkLocal,
        // Site-local, deprecated by RFC 3879.
        0xfec0..=0xfeff => AddressKind::Private,
        0xff00.. => AddressKind::Multicast,
        // Local-use NAT64 prefix (RFC 8215).
        0x64 if b == 0xff9b => AddressKind::Private,
        // Teredo and other protocol assignments (2001::/23); documentation (2001:db8::/32, 3fff::/20).
        0x2001 if b < 0x200 || b == 0xdb8 => AddressKind::Reserved,
        0x3fff if b < 0x1000 => AddressKind::Reserved,
        0x2000..=0x3fff => return None,
        _ => AddressKind::Reserved,
    })
}
