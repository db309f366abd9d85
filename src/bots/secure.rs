//! DTLS and SRTP of one connection: the handshake as a client, then packets in the clear both ways.
//!
//! Owns: keys. Does not know: ICE, sockets, what packets mean. Datagrams come in by [`Secure::handshake`] until
//! [`Secure::keys`] are there; what is to be sent leaves by [`Secure::poll`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;

/// Packets remembered to tell a repeated one: more than a second of video, so that a late repair is no repetition.
const REPLAY_WINDOW: usize = 512;

/// Whether this is DTLS, by its first byte (RFC 7983).
pub(super) fn is_dtls(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (20..=63).contains(first))
}

/// The certificate all bots of this process show: making one for each would cost more than the call.
#[derive(Clone)]
pub(super) struct Identity {
    crypto: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    /// SHA-256 of it, as SDP writes it.
    pub(super) fingerprint: String,
}

impl Identity {
    pub(super) fn new() -> Result<Self, Error> {
        let crypto = rtc::crypto::default_provider().map_err(|error| Error::Crypto(error.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["commingle-bots".to_owned()], crypto.crypto())?;
        let fingerprint = fingerprint(&*crypto, &certificate.certificate[0])?;
        Ok(Self { crypto, certificate, fingerprint })
    }

    pub(super) fn crypto(&self) -> Arc<dyn RTCCryptoProvider> {
        Arc::clone(&self.crypto)
    }
}

fn fingerprint(crypto: &dyn RTCCryptoProvider, certificate: &[u8]) -> Result<String, Error> {
    let hash = crypto.crypto().hash(HashAlgorithm::Sha256, certificate);
    let hash = hash.map_err(|error| Error::Crypto(error.to_string()))?;
    Ok(hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"))
}

/// The keys of both directions.
pub(super) struct Keys {
    /// Encrypts what we send.
    pub(super) out: Context,
    /// Decrypts what we get.
    pub(super) inn: Context,
}

/// What a datagram did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing to tell.
    None,
    /// The handshake is over, the keys are there.
    Connected,
    /// The server has said goodbye.
    Closed,
}

pub(super) struct Secure {
    endpoint: Endpoint,
    server: SocketAddr,
    crypto: Arc<dyn RTCCryptoProvider>,
    keys: Option<Keys>,
}

impl Secure {
    /// Begins the handshake with the server at this address, whose certificate must have this fingerprint.
    pub(super) fn connect(
        identity: &Identity,
        server: SocketAddr,
        expected: &str,
        now: Instant,
    ) -> Result<Self, Error> {
        let (crypto, expected) = (identity.crypto(), expected.to_owned());
        let verify = move |certificates: &[Vec<u8>], _: &[_]| match certificates.first() {
            Some(first) if fingerprint(&*crypto, first)?.eq_ignore_ascii_case(&expected) => Ok(()),
            _ => Err(Error::ErrNoMatchingCertificateFingerprint),
        };
        let config = ConfigBuilder::default()
            .with_crypto_provider(identity.crypto())
            .with_certificates(vec![identity.certificate.clone()])
            .with_srtp_protection_profiles(vec![
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
            ])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // There is no authority above the certificate: the answer's fingerprint vouches for it.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(verify)))
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .build(true, None)?;
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut endpoint = Endpoint::new(unspecified, TransportProtocol::UDP, None);
        endpoint.connect(now, server, Arc::new(config), None)?;
        Ok(Self { endpoint, server, crypto: identity.crypto(), keys: None })
    }

    /// Both directions' keys, once the handshake is over.
    pub(super) fn keys(&mut self) -> Option<&mut Keys> {
        self.keys.as_mut()
    }

    /// Takes a DTLS datagram of the server.
    pub(super) fn handshake(&mut self, now: Instant, datagram: &[u8]) -> Result<Progress, Error> {
        let mut progress = Progress::None;
        for event in self.endpoint.read(now, self.server, None, BytesMut::from(datagram))? {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = self.endpoint.get_connection_state(self.server).ok_or(Error::ErrConnClosed)?;
                    self.keys = Some(keys(state, &*self.crypto)?);
                    progress = Progress::Connected;
                }
                EndpointEvent::PeerClosed => return Ok(Progress::Closed),
                _ => {}
            }
        }
        Ok(progress)
    }

    /// Sends again what was lost of the handshake, when it is time.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Error> {
        if self.keys.is_none() { self.endpoint.handle_timeout(self.server, now) } else { Ok(()) }
    }

    /// Says goodbye; [`Secure::poll`] then has the words.
    pub(super) fn close(&mut self, now: Instant) {
        // What cannot be said now is said by the HTTP request that ends the session.
        let _ = self.endpoint.close(now);
    }

    /// The next datagram to send.
    pub(super) fn poll(&mut self) -> Option<BytesMut> {
        Some(self.endpoint.poll_transmit()?.message)
    }
}

/// RFC 5764: both directions' keys from the handshake's secret.
fn keys(state: &State, crypto: &dyn RTCCryptoProvider) -> Result<Keys, Error> {
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        _ => return Err(Error::ErrNoSuchSrtpProfile),
    };
    let mut config = Config { profile, ..Config::default() };
    let material = state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
    config.set_session_keys_from_keying_material(material.as_ref(), true)?;
    let keys = &config.keys;
    let crypto = crypto.crypto();
    Ok(Keys {
        out: Context::new(&keys.local_master_key, &keys.local_master_salt, profile, None, None, crypto)?,
        inn: Context::new(
            &keys.remote_master_key,
            &keys.remote_master_salt,
            profile,
            Some(srtp_replay_protection(REPLAY_WINDOW)),
            Some(srtcp_replay_protection(REPLAY_WINDOW)),
            crypto,
        )?,
    })
}
