//! Writes the messages of ICE connectivity checks (RFC 8445 section 7).
//!
//! Owns: their attributes and signatures. Does not know: when they are sent. Their content enters, bytes leave.

use std::net::SocketAddr;

use rtc::crypto::RTCCryptoProvider;
use rtc::stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, ATTR_XORMAPPED_ADDRESS,
};
use rtc::stun::error_code::CODE_ROLE_CONFLICT;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Message, MessageType, Setter, TransactionId,
};
use rtc::stun::xoraddr::XorMappedAddress;

use super::{Credentials, Role};
use crate::transport::stun::Transaction;

/// The content of a check.
pub(crate) struct Check<'a> {
    pub(crate) role: Role,
    pub(crate) tie_breaker: u64,
    /// PRIORITY: the priority of a peer-reflexive candidate that the remote agent would learn from this check.
    pub(crate) priority: u32,
    /// Sends USE-CANDIDATE; only the controlling agent does.
    pub(crate) nominates: bool,
    /// Credentials of the sender.
    pub(crate) from: &'a Credentials,
    /// Credentials of the receiver, whose password signs the check.
    pub(crate) to: &'a Credentials,
}

/// A check and its transaction; None if it cannot be signed.
pub(crate) fn request(check: &Check<'_>, crypto: &dyn RTCCryptoProvider) -> Option<(Transaction, Vec<u8>)> {
    let mut message = Message::new();
    message.set_type(BINDING_REQUEST);
    message.write_header();
    message.new_transaction_id().ok()?;
    message.add(ATTR_USERNAME, format!("{}:{}", check.to.ufrag, check.from.ufrag).as_bytes());
    message.add(ATTR_PRIORITY, &check.priority.to_be_bytes());
    match check.role {
        Role::Controlling => message.add(ATTR_ICE_CONTROLLING, &check.tie_breaker.to_be_bytes()),
        Role::Controlled => message.add(ATTR_ICE_CONTROLLED, &check.tie_breaker.to_be_bytes()),
    }
    if check.nominates {
        message.add(ATTR_USE_CANDIDATE, &[]);
    }
    let transaction = message.transaction_id.0;
    signed(message, &check.to.password, crypto).map(|bytes| (transaction, bytes))
}

/// The success response to a check that arrived from this address, signed with our password.
pub(crate) fn success(
    asked: Transaction,
    from: SocketAddr,
    password: &str,
    crypto: &dyn RTCCryptoProvider,
) -> Option<Vec<u8>> {
    let mut message = answer(BINDING_SUCCESS, asked);
    XorMappedAddress { ip: from.ip(), port: from.port() }.add_to_as(&mut message, ATTR_XORMAPPED_ADDRESS).ok()?;
    signed(message, password, crypto)
}

/// The response 487 to a check of an agent in the same role, which then switches (RFC 8445 section 7.3.1.1).
pub(crate) fn role_conflict(asked: Transaction, password: &str, crypto: &dyn RTCCryptoProvider) -> Option<Vec<u8>> {
    let mut message = answer(BINDING_ERROR, asked);
    CODE_ROLE_CONFLICT.add_to(&mut message).ok()?;
    signed(message, password, crypto)
}

fn answer(kind: MessageType, asked: Transaction) -> Message {
    let mut message = Message::new();
    message.set_type(kind);
    message.transaction_id = TransactionId(asked);
    message.write_header();
    message
}

fn signed(mut message: Message, password: &str, crypto: &dyn RTCCryptoProvider) -> Option<Vec<u8>> {
    let integrity = MessageIntegrity::new_short_term_integrity_with_provider(password.to_owned(), crypto.crypto());
    integrity.add_to(&mut message).ok()?;
    FINGERPRINT.add_to(&mut message).ok()?;
    Some(message.raw)
}
