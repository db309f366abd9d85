//! The typed parts of a destination.
//!
//! Owns: one struct per protocol, default ports, and `Display` without secrets. Does not know: URL syntax.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{DestinationError, Endpoint, Host, parse};
use crate::secret::Secret;

/// A destination by protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// RTMP or RTMPS: publish (output) or play (input).
    Rtmp(Rtmp),
    /// MPEG-TS over SRT, output or input.
    Srt(Srt),
    /// Output to another WebRTC server (WHIP, RFC 9725).
    Whip(Web),
    /// Input from another WebRTC server (WHEP).
    Whep(Web),
    /// Input from a web server: HLS or a media file.
    Http(Web),
    /// Input from an RTSP camera or server.
    Rtsp(Rtsp),
    /// Output as plain RTP: video to this port, audio to the port two above.
    Rtp(Endpoint),
    /// Input from a file of the media folder, by name.
    File(String),
}

/// A stream of an application of an RTMP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtmp {
    /// RTMPS.
    pub tls: bool,
    /// Host and port of the server.
    pub endpoint: Endpoint,
    /// The application: every segment of the path but the last, with its query if it has one; or the only segment.
    pub app: Secret,
    /// The stream name with its query. It authorizes publishing. Empty if the URL has only one segment.
    pub key: Secret,
}

impl Rtmp {
    const PORT: u16 = 1935;
    const TLS_PORT: u16 = 443;

    /// The port of a URL without one.
    pub const fn default_port(tls: bool) -> u16 {
        if tls { Self::TLS_PORT } else { Self::PORT }
    }

    /// `tcUrl` of the command `connect`: scheme, server and application.
    pub fn tc_url(&self) -> String {
        let scheme = if self.tls { "rtmps" } else { "rtmp" };
        let authority = authority(&self.endpoint, Self::default_port(self.tls));
        format!("{scheme}://{authority}/{}", self.app.expose())
    }

    /// [`Rtmp::tc_url`] without what may be secret: a query, and a segment that is both application and key.
    fn shown(&self) -> String {
        let shown =
            if self.key.expose().is_empty() { "" } else { self.app.expose().split('?').next().unwrap_or_default() };
        let separator = if shown.is_empty() { "" } else { "/" };
        let server = Self { app: Secret::from(String::new()), ..self.clone() };
        format!("{}{shown}{separator}…", server.tc_url())
    }
}

/// An SRT connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srt {
    /// Caller or listener.
    pub mode: SrtMode,
    /// Receiver latency: the time available for retransmissions, 20 ms to 8 s.
    pub latency: Duration,
    /// Passphrase of the encryption; None sends in the clear.
    pub passphrase: Option<Secret>,
    /// Length of the encryption key in bytes: 16, 24 or 32.
    pub key_length: u8,
    /// SRT stream id. It often contains credentials.
    pub stream_id: Option<Secret>,
}

/// Which side opens an SRT connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SrtMode {
    /// This server connects to the endpoint.
    Caller(Endpoint),
    /// This server listens at the local address.
    Listener(SocketAddr),
}

/// An HTTP resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// HTTPS.
    pub tls: bool,
    /// Host and port of the server.
    pub endpoint: Endpoint,
    /// The complete URL, with scheme `http` or `https`.
    pub url: Secret,
}

impl Web {
    /// Resolves a `Location` header, absolute or relative to this URL.
    ///
    /// # Errors
    /// The result is not an `http` or `https` URL.
    pub fn join(&self, location: &str) -> Result<Self, DestinationError> {
        parse::location(self.url.expose(), location)
    }

    /// The port of a URL without one.
    pub const fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }
}

/// A stream of an RTSP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtsp {
    /// Host and port of the server.
    pub endpoint: Endpoint,
    /// Path and query.
    pub path: Secret,
    /// User name and password, percent-decoded.
    pub login: Option<(Secret, Secret)>,
}

impl Rtsp {
    /// The port of a URL without one.
    pub const PORT: u16 = 554;

    /// The URL with `address` in place of the host, so that it is not resolved again; without user name and password.
    pub fn url_at(&self, address: IpAddr) -> Secret {
        let endpoint = Endpoint { host: Host::Address(address), port: self.endpoint.port };
        Secret::from(format!("rtsp://{endpoint}{}", self.path.expose()))
    }
}

/// The host, and the port unless it is the default.
fn authority(endpoint: &Endpoint, default: u16) -> String {
    if endpoint.port == default { endpoint.host.to_string() } else { endpoint.to_string() }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let web = |f: &mut fmt::Formatter<'_>, prefix: &str, Web { tls, endpoint, .. }: &Web| {
            let scheme = if *tls { "https" } else { "http" };
            write!(f, "{prefix}{scheme}://{}/…", authority(endpoint, Web::default_port(*tls)))
        };
        match self {
            Self::Rtmp(rtmp) => f.write_str(&rtmp.shown()),
            Self::Srt(srt) => srt.fmt(f),
            Self::Whip(target) => web(f, "whip+", target),
            Self::Whep(target) => web(f, "whep+", target),
            Self::Http(target) => web(f, "", target),
            Self::Rtsp(rtsp) => write!(f, "rtsp://{}/…", authority(&rtsp.endpoint, Rtsp::PORT)),
            Self::Rtp(endpoint) => write!(f, "rtp://{endpoint}"),
            Self::File(name) => write!(f, "file:{name}"),
        }
    }
}

impl fmt::Display for Srt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mode {
            SrtMode::Caller(endpoint) => write!(f, "srt://{endpoint}?mode=caller")?,
            SrtMode::Listener(address) => write!(f, "srt://{address}?mode=listener")?,
        }
        write!(f, "&latency={}", self.latency.as_millis())?;
        if self.passphrase.is_some() {
            f.write_str("&passphrase=…")?;
        }
        if self.stream_id.is_some() {
            f.write_str("&streamid=…")?;
        }
        Ok(())
    }
}
