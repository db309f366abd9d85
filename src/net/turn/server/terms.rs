//! The input and output types of the TURN protocol.
//!
//! Owns: these types. Does not know: the protocol.

use std::net::SocketAddr;

use crate::time::Timestamp;

/// Quotas, in allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net::turn) struct Limits {
    /// In total.
    pub(in crate::net::turn) allocations: usize,
    /// Per credential.
    pub(in crate::net::turn) per_user: usize,
    /// Per source network.
    pub(in crate::net::turn) per_address: usize,
}

/// A time on both clocks: credentials expire by the wall clock.
#[derive(Debug, Clone, Copy)]
pub(in crate::net::turn) struct Now {
    pub(in crate::net::turn) at: Timestamp,
    /// Seconds since 1970.
    pub(in crate::net::turn) unix: u64,
}

/// The transport between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::net::turn) enum Flow {
    Udp,
    /// A TCP or TLS connection.
    Stream(u64),
}

/// The client's part of a 5-tuple, which implies ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::net::turn) struct Client {
    pub(in crate::net::turn) flow: Flow,
    pub(in crate::net::turn) address: SocketAddr,
}

/// The path between one client and one of our media addresses, identified by the port of its relayed address.
pub(in crate::net::turn) type Path = u16;

/// What to do with a received message.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net::turn) enum Outcome<'a> {
    /// Send this response.
    Answer(Vec<u8>),
    /// Relay this data to the media port on this path.
    Relay(Path, &'a [u8]),
    /// Drop the message.
    Drop(Reason),
}

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net::turn) enum Reason {
    /// Malformed, or an unknown method.
    Malformed,
    /// Too many unsigned requests from its source network.
    Limited,
    /// No permission, channel or allocation for it.
    NotAllowed,
}

/// An effect on a path or client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net::turn) enum Effect {
    /// A path from `client` to `peer` was opened; its relayed address is `relayed`.
    Opened { path: Path, client: Client, relayed: SocketAddr, peer: SocketAddr },
    /// Data to the client uses this channel from now on; None for Data indications.
    Channel { path: Path, number: Option<u16> },
    /// The path was closed.
    Closed { path: Path },
    /// The session of the client's allocation has ended, and the allocation with it.
    Over { client: Client },
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::net::turn) struct Counts {
    pub(in crate::net::turn) allocated: u64,
    pub(in crate::net::turn) unauthorized: u64,
    pub(in crate::net::turn) forbidden: u64,
    pub(in crate::net::turn) over_quota: u64,
}
