//! Our side of a WebRTC connection to somebody else's server, or to our own under test.
//!
//! Owns: [`description`] (the offer, the answer), [`connection`] (everything from the answer to the end, sans-IO), and
//! [`signalling`] (the POST that begins it and the DELETE that ends it, WHIP and WHEP), [`call`], which has the socket of
//! a session at somebody else's server, and [`reach`], which tries the ways to one. Does not know: what is sent or shown.

pub(crate) mod call;
pub(crate) mod connection;
pub(crate) mod description;
pub(crate) mod incoming;
mod outgoing;
pub(crate) mod reach;
pub(crate) mod signalling;

use crate::transport::secure::Identity;

/// Who we are in DTLS, made anew for each connection.
pub(crate) fn identity() -> Result<Identity, String> {
    let crypto = rtc::crypto::default_provider().map_err(|error| error.to_string())?;
    Identity::new(crypto).map_err(|error| error.to_string())
}
