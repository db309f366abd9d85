//! DTLS of one connection: the handshake in either role, then the SRTP keys that it exports (RFC 5764).
//!
//! Owns: the DTLS association and the [`Keys`]. Does not know: ICE, sockets, the content of packets. DTLS datagrams
//! enter by [`Secure::handshake`]; [`Secure::keys`] are there when it has finished; datagrams to send leave by
//! [`Secure::poll`].

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::protection_profile::ProtectionProfile;

use super::flight::Flight;
pub(crate) use super::srtp::Keys;
use super::srtp::Master;
use crate::time::{Moment, Timestamp};

/// The crate's own retransmission timer, longer than [`Flight`]'s: the crate stops it too early.
const FLIGHT_INTERVAL: Duration = Duration::from_secs(60);

/// SRTP protection profiles, the best first (RFC 5764, RFC 7714); the client's order takes precedence.
pub(crate) const PROFILES: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];

/// Whether a datagram is DTLS, by its first byte (RFC 7983).
pub(crate) fn is_dtls(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (20..=63).contains(first))
}

/// The certificate that all connections of one kind use: generating one per connection would cost more than the rest of
/// a join.
#[derive(Clone)]
pub(crate) struct Identity {
    crypto: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    /// SHA-256 of the certificate in the format of SDP (RFC 8122 section 5).
    pub(crate) fingerprint: String,
}

impl Identity {
    pub(crate) fn new(crypto: Arc<dyn RTCCryptoProvider>) -> Result<Self, Error> {
        let certificate = Certificate::generate_self_signed(vec!["commingle".to_owned()], crypto.crypto())?;
        let fingerprint = fingerprint(&*crypto, &certificate.certificate[0])?;
        Ok(Self { crypto, certificate, fingerprint })
    }

    pub(crate) fn crypto(&self) -> Arc<dyn RTCCryptoProvider> {
        Arc::clone(&self.crypto)
    }
}

fn fingerprint(crypto: &dyn RTCCryptoProvider, certificate: &[u8]) -> Result<String, Error> {
    let hash = crypto.crypto().hash(HashAlgorithm::Sha256, certificate);
    let hash = hash.map_err(|error| Error::Crypto(error.to_string()))?;
    Ok(hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"))
}

/// The effect of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No change of state.
    None,
    /// The handshake has finished; the keys are there.
    Connected,
    /// The remote side has closed the association (close_notify).
    Closed,
}

/// The remote address as the crate knows it. It identifies associations by address, and ICE may change the real one.
const OTHER_SIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

pub(crate) struct Secure {
    endpoint: Endpoint,
    is_client: bool,
    crypto: Arc<dyn RTCCryptoProvider>,
    keys: Option<Keys>,
    flight: Flight,
    /// Datagrams of the flight that wait for retransmission.
    again: VecDeque<BytesMut>,
}

impl Secure {
    /// Starts a handshake as the client. The server's certificate must have one of the `expected` fingerprints
    /// (SHA-256).
    pub(crate) fn connect(identity: &Identity, expected: Vec<String>, now: Instant) -> Result<Self, Error> {
        let config = config(identity, expected, true)?;
        let mut endpoint = Endpoint::new(OTHER_SIDE, TransportProtocol::UDP, None);
        endpoint.connect(now, OTHER_SIDE, config, None)?;
        Ok(Self {
            endpoint,
            is_client: true,
            crypto: identity.crypto(),
            keys: None,
            flight: Flight::default(),
            again: VecDeque::new(),
        })
    }

    /// Waits for a handshake as the server. The client's certificate must have one of the `expected` fingerprints
    /// (SHA-256).
    pub(crate) fn accept(identity: &Identity, expected: Vec<String>) -> Result<Self, Error> {
        let config = config(identity, expected, false)?;
        let endpoint = Endpoint::new(OTHER_SIDE, TransportProtocol::UDP, Some(config));
        Ok(Self {
            endpoint,
            is_client: false,
            crypto: identity.crypto(),
            keys: None,
            flight: Flight::default(),
            again: VecDeque::new(),
        })
    }

    /// The SRTP keys of both directions; None until the handshake has finished.
    pub(crate) fn keys(&mut self) -> Option<&mut Keys> {
        self.keys.as_mut()
    }

    /// Handles a received DTLS datagram.
    pub(crate) fn handshake(&mut self, moment: Moment, datagram: &[u8]) -> Result<Progress, Error> {
        let mut progress = Progress::None;
        if self.flight.heard(datagram) {
            self.repeat(moment.now, true);
        }
        for event in self.endpoint.read(moment.instant, OTHER_SIDE, None, BytesMut::from(datagram))? {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = self.endpoint.get_connection_state(OTHER_SIDE).ok_or(Error::ErrConnClosed)?;
                    self.keys = Some(keys(state, self.is_client, &*self.crypto)?);
                    progress = Progress::Connected;
                }
                EndpointEvent::PeerClosed => return Ok(Progress::Closed),
                _ => {}
            }
        }
        Ok(progress)
    }

    /// Retransmits the last flight when it is due.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        if self.keys.is_none() {
            self.repeat(now, false);
        }
    }

    fn repeat(&mut self, now: Timestamp, asked: bool) {
        self.again.extend(self.flight.again(now, asked).iter().map(|datagram| BytesMut::from(&datagram[..])));
    }

    /// Closes the association; [`Secure::poll`] then returns the alert.
    pub(crate) fn close(&mut self, now: Instant) {
        // Without an association there is nothing to close; the HTTP request ends the session.
        let _ = self.endpoint.close(now);
    }

    /// The next datagram to send.
    pub(crate) fn poll(&mut self) -> Option<BytesMut> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        let datagram = self.endpoint.poll_transmit()?.message;
        self.flight.sent(&datagram);
        Some(datagram)
    }
}

fn config(identity: &Identity, expected: Vec<String>, is_client: bool) -> Result<Arc<HandshakeConfig>, Error> {
    let crypto = identity.crypto();
    let verify = move |certificates: &[Vec<u8>], _: &[_]| {
        let shown = fingerprint(&*crypto, certificates.first().ok_or(Error::ErrNoMatchingCertificateFingerprint)?)?;
        let known = expected.iter().any(|expected| expected.eq_ignore_ascii_case(&shown));
        if known { Ok(()) } else { Err(Error::ErrNoMatchingCertificateFingerprint) }
    };
    let config = ConfigBuilder::default()
        .with_crypto_provider(identity.crypto())
        .with_certificates(vec![identity.certificate.clone()])
        .with_srtp_protection_profiles(PROFILES.to_vec())
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        // The certificate is self-signed and is authenticated by the fingerprint in the SDP.
        .with_insecure_skip_verify(true)
        .with_verify_peer_certificate(Some(Arc::new(verify)))
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        .with_flight_interval(FLIGHT_INTERVAL)
        .build(is_client, None)?;
    Ok(Arc::new(config))
}

/// Exports the SRTP keys of both directions (RFC 5764 section 4.2).
fn keys(state: &State, is_client: bool, crypto: &dyn RTCCryptoProvider) -> Result<Keys, Error> {
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        _ => return Err(Error::ErrNoSuchSrtpProfile),
    };
    let mut config = Config { profile, ..Config::default() };
    let material = state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
    config.set_session_keys_from_keying_material(material.as_ref(), is_client)?;
    let keys = &config.keys;
    let local = Master { key: &keys.local_master_key, salt: &keys.local_master_salt };
    let remote = Master { key: &keys.remote_master_key, salt: &keys.remote_master_salt };
    Keys::new(profile, local, remote, crypto.crypto()).map_err(|error| Error::Crypto(error.to_string()))
}
