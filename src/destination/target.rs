//! What a destination is made of. `Display` shows what people may see.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{DestinationError, Endpoint, Host, parse};
use crate::secret::Secret;

/// The kinds of destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// RTMP or RTMPS, either way.
    Rtmp(Rtmp),
    /// MPEG-TS over SRT, either way.
    Srt(Srt),
    /// To another WebRTC server, RFC 9725.
    Whip(Web),
    /// From another WebRTC server.
    Whep(Web),
    /// From a web server: HLS or a file.
    Http(Web),
    /// From a camera or server that speaks RTSP.
    Rtsp(Rtsp),
    /// Bare RTP to this port; sound to the port two above.
    Rtp(Endpoint),
    /// From a file of the media folder.
    File(String),
}

/// An RTMP server, an application there and a stream of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtmp {
    /// Over TLS.
    pub tls: bool,
    /// The server.
    pub endpoint: Endpoint,
    /// The application: every segment of the path but the last.
    pub app: String,
    /// The stream's name with its query: whoever has it can send in our name.
    pub key: Secret,
}

impl Rtmp {
    const PORT: u16 = 1935;
    const TLS_PORT: u16 = 443;

    /// The port where none is written.
    pub const fn default_port(tls: bool) -> u16 {
        if tls { Self::TLS_PORT } else { Self::PORT }
    }

    /// The `tcUrl` of the command `connect`: server and application.
    pub fn tc_url(&self) -> String {
        let scheme = if self.tls { "rtmps" } else { "rtmp" };
        let authority = authority(&self.endpoint, Self::default_port(self.tls));
        format!("{scheme}://{authority}/{}", self.app)
    }
}

/// An SRT connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srt {
    /// Who connects.
    pub mode: SrtMode,
    /// How long lost packets may take to be sent again.
    pub latency: Duration,
    /// What the stream is encrypted with.
    pub passphrase: Option<Secret>,
    /// Length of the key made of it, in bytes.
    pub key_length: u8,
    /// What the caller wants of the listener; often a secret of its own.
    pub stream_id: Option<Secret>,
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SrtMode {
    /// We connect to them.
    Caller(Endpoint),
    /// They connect to this port of ours, at this address of ours.
    Listener(SocketAddr),
}

/// A resource of a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Over TLS.
    pub tls: bool,
    /// The server.
    pub endpoint: Endpoint,
    /// The whole URL, beginning with `http`.
    pub url: Secret,
}

impl Web {
    /// What a server's `Location` means that answered here: a URL, or one relative to this.
    ///
    /// # Errors
    /// It is none of the web.
    pub fn join(&self, location: &str) -> Result<Self, DestinationError> {
        parse::location(self.url.expose(), location)
    }

    /// The port where none is written.
    pub const fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }
}

/// A stream of an RTSP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtsp {
    /// The server.
    pub endpoint: Endpoint,
    /// Path and query.
    pub path: Secret,
    /// User name and password.
    pub login: Option<(Secret, Secret)>,
}

impl Rtsp {
    /// The port where none is written.
    pub const PORT: u16 = 554;

    /// The URL with this address in place of the host, for who must not resolve it again; user name and password are left
    /// out.
    pub fn url_at(&self, address: IpAddr) -> Secret {
        let endpoint = Endpoint { host: Host::Address(address), port: self.endpoint.port };
        Secret::from(format!("rtsp://{endpoint}{}", self.path.expose()))
    }
}

/// The host, and the port where it is not the usual one.
fn authority(endpoint: &Endpoint, usual: u16) -> String {
    if endpoint.port == usual { endpoint.host.to_string() } else { endpoint.to_string() }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let web = |f: &mut fmt::Formatter<'_>, prefix: &str, Web { tls, endpoint, .. }: &Web| {
            let scheme = if *tls { "https" } else { "http" };
            write!(f, "{prefix}{scheme}://{}/…", authority(endpoint, Web::default_port(*tls)))
        };
        match self {
            Self::Rtmp(rtmp) => write!(f, "{}/…", rtmp.tc_url()),
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
