//! What goes into the TURN server and what comes out of it.
//!
//! Owns: these types. Does not know: what becomes of them.

use std::net::SocketAddr;

use crate::time::Timestamp;

/// What clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net::turn) struct Limits {
    /// Allocations of all.
    pub(in crate::net::turn) allocations: usize,
    /// Allocations of one credential.
    pub(in crate::net::turn) per_user: usize,
    /// Allocations of one address.
    pub(in crate::net::turn) per_address: usize,
}

/// A point in time on both clocks: expiries of credentials are told by the wall clock.
#[derive(Debug, Clone, Copy)]
pub(in crate::net::turn) struct Now {
    pub(in crate::net::turn) at: Timestamp,
    /// Seconds since 1970.
    pub(in crate::net::turn) unix: u64,
}

/// How a client reaches us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::net::turn) enum Flow {
    Udp,
    /// A TCP or TLS connection.
    Stream(u64),
}

/// A client's end of a 5-tuple; ours follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::net::turn) struct Client {
    pub(in crate::net::turn) flow: Flow,
    pub(in crate::net::turn) address: SocketAddr,
}

/// Between one client and one of our media addresses; named by the port of the address that the client seems to have.
pub(in crate::net::turn) type Path = u16;

/// What is to be done with what was received.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net::turn) enum Outcome<'a> {
    /// Send this back.
    Answer(Vec<u8>),
    /// This is for the media port, by this path.
    Relay(Path, &'a [u8]),
    /// Nothing.
    Drop(Reason),
}

/// Why nothing comes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net::turn) enum Reason {
    /// It cannot be read, or asks for nothing that there is.
    Malformed,
    /// Its address asks too often without signing.
    Limited,
    /// There is no permission, channel or allocation for it.
    NotAllowed,
}

/// What became of a path, or of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net::turn) enum Effect {
    /// The client at `client` begins to talk to `peer`, and seems to be at `relayed`.
    Opened { path: Path, client: Client, relayed: SocketAddr, peer: SocketAddr },
    /// What goes to the client goes by this channel from now on; None for none.
    Channel { path: Path, number: Option<u16> },
    /// It is over.
    Closed { path: Path },
    /// The session is over that the client's allocation was for, and with it that.
    Over { client: Client },
}

/// What the server has counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::net::turn) struct Counts {
    pub(in crate::net::turn) allocated: u64,
    pub(in crate::net::turn) unauthorized: u64,
    pub(in crate::net::turn) forbidden: u64,
    pub(in crate::net::turn) over_quota: u64,
}
