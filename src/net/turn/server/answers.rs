//! Parts of TURN responses: errors, and the attributes of successes.
//!
//! Owns: error codes and attributes. Does not know: the state of the server. Values enter, attributes leave.

use std::time::Duration;

use super::{Allocation, Client};
use crate::net::turn::message::{Message, Method, Writer, kind};
use crate::time::Timestamp;
use crate::transport::stun::Class;

/// Default lifetime of an allocation (RFC 8656 section 3.2).
const LIFETIME: Duration = Duration::from_secs(600);
/// Maximum lifetime of an allocation without a refresh.
const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// An error response: code and reason.
pub(super) struct Refusal(pub(super) u16, pub(super) &'static str);

pub(super) const BAD_REQUEST: Refusal = Refusal(400, "Bad Request");
pub(super) const FORBIDDEN: Refusal = Refusal(403, "This relay reaches only the media port of its own server");
pub(super) const MISMATCH: Refusal = Refusal(437, "Allocation Mismatch");
pub(super) const WRONG_FAMILY: Refusal = Refusal(443, "Peer Address Family Mismatch");
pub(super) const FULL: Refusal = Refusal(508, "Insufficient Capacity");

/// The success response to an Allocate request.
pub(super) fn allocated(message: &Message<'_>, client: Client, allocation: &Allocation, at: Timestamp) -> Writer {
    let left = allocation.expires.since(at).as_secs() as u32;
    Writer::new(message.method, Class::Success, message.transaction)
        .address(kind::XOR_RELAYED_ADDRESS, allocation.relayed)
        .attribute(kind::LIFETIME, &left.to_be_bytes())
        .address(kind::XOR_MAPPED_ADDRESS, client.address)
}

/// The lifetime of an allocation: zero removes it, any other request is raised to the default at least (RFC 8656
/// section 7.2).
pub(super) fn lifetime(message: &Message<'_>) -> Duration {
    match message.number(kind::LIFETIME) {
        Some(0) if message.method == Method::REFRESH => Duration::ZERO,
        Some(seconds) => Duration::from_secs(seconds.into()).clamp(LIFETIME, LIFETIME_MAX),
        None => LIFETIME,
    }
}

pub(super) fn refuse_unknown(message: &Message<'_>, unknown: &[u16]) -> Writer {
    let kinds: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    let answer = Writer::new(message.method, Class::Error, message.transaction).error(420, "Unknown Attribute");
    answer.attribute(kind::UNKNOWN_ATTRIBUTES, &kinds)
}
