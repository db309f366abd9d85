//! The client side of WebRTC: connections to other servers (WHIP, WHEP, `doctor`), and of the bots to a server under
//! test.
//!
//! Owns: [`description`] (offer and answer), [`connection`] (one connection, sans-IO, of streams in [`receive`] and
//! [`send`]), [`signalling`] (WHIP and WHEP requests), [`session`] (a session at another server with its socket), and
//! [`reach`] (which candidates and TURN servers of a server work). Does not know: what is sent or shown.

pub(crate) mod connection;
pub(crate) mod description;
pub(crate) mod reach;
pub(crate) mod receive;
mod send;
pub(crate) mod session;
pub(crate) mod signalling;

use crate::transport::secure::Identity;

/// A new certificate for DTLS.
pub(crate) fn identity() -> Result<Identity, String> {
    let crypto = rtc::crypto::default_provider().map_err(|error| error.to_string())?;
    Identity::new(crypto).map_err(|error| error.to_string())
}
