//! Destinations: where an output may send to, and where an input may come from.
//!
//! Owns: which URLs are taken for what, what is in them, how one looks to people, and the guard of addresses.
//! Does not know: how names become addresses, how anything is sent. In: what somebody wrote, by
//! [`Destination::output`] and [`Destination::input`]. Out: a [`Destination`] of typed parts. Its `Display`, `Debug` and
//! `Serialize` show no secret: user names, stream keys, passphrases, stream ids, paths and queries stay inside. Only
//! [`SecretForm`] has everything; it exists for the link between our own processes.
//!
//! Whoever connects resolves the name once, lets [`Guard::choose`] pick one of the addresses, and connects to just that.

mod guard;
mod parse;
mod target;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};

pub use self::guard::{Guard, Network, NetworkError, Refused, Why};
pub use self::target::{Rtmp, Rtsp, Srt, SrtMode, Target, Web};
use crate::secret::Secret;

/// Longest URL, in bytes.
pub const URL_MAX: usize = 2048;

/// Why a text is no destination. Each message says what to write, and repeats nothing of what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DestinationError {
    #[error("the URL has more than {URL_MAX} bytes: write a shorter one")]
    TooLong,
    #[error("the URL has white space or control characters: remove them, or write them as %20")]
    Blank,
    #[error("this is no URL: write {0}")]
    NotAUrl(&'static str),
    #[error("this kind of URL is not taken here: write {0}")]
    Scheme(&'static str),
    #[error("the URL has no host, or one that is neither a name nor an address: write {0}")]
    Host(&'static str),
    #[error("the URL has no port, or port 0: write {0}")]
    Port(&'static str),
    #[error("port {0} is too high: the sound goes to the port two above, so use an even one up to 65532")]
    RtpPort(u16),
    #[error("the URL has a user name or password before the host: leave them out; {0}")]
    UserInfo(&'static str),
    #[error("the URL has a `#`: write it as %23 where it belongs to a key, or leave it out")]
    Fragment,
    #[error("the URL lacks the application or the stream key: write rtmp://HOST/APP/KEY")]
    StreamKey,
    #[error(
        "srt URLs take the parameters mode, latency, passphrase, pbkeylen and streamid, each once: leave out others"
    )]
    SrtParameter,
    #[error("mode is `caller` (we connect to them) or `listener` (they connect to us)")]
    SrtMode,
    #[error("latency is in milliseconds, 20 to 8000")]
    SrtLatency,
    #[error("passphrase has 10 to 79 characters, and pbkeylen, which needs one, is 16, 24 or 32")]
    SrtPassphrase,
    #[error("streamid has at most 512 bytes")]
    SrtStreamId,
    #[error(
        "a token goes only with whip+https, whip+http, whep+https and whep+http, and is 1 to 4096 visible characters"
    )]
    Token,
    #[error(
        "this is no file name of the media folder: write file:NAME, with up to 128 letters, digits, spaces, `.`, `_` and \
         `-`, beginning with a letter or digit"
    )]
    FileName,
}

/// A host as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name that must be resolved.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where an output sends to, or an input comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    target: Target,
    /// What was written, with every secret.
    text: Secret,
    token: Option<Secret>,
    output: bool,
}

impl Destination {
    /// Reads where a broadcast is to go.
    ///
    /// # Errors
    /// What to write instead.
    pub fn output(text: &str) -> Result<Self, DestinationError> {
        Self::new(text, true)
    }

    /// Reads where an input is to come from.
    ///
    /// # Errors
    /// What to write instead.
    pub fn input(text: &str) -> Result<Self, DestinationError> {
        Self::new(text, false)
    }

    fn new(text: &str, output: bool) -> Result<Self, DestinationError> {
        let target = if output { parse::output(text)? } else { parse::input(text)? };
        Ok(Self { target, text: Secret::from(text.to_owned()), token: None, output })
    }

    /// The same, with the bearer token that a WHIP or WHEP server wants.
    ///
    /// # Errors
    /// It is not sent to such a server, or no header can carry the token.
    pub fn with_token(mut self, token: Secret) -> Result<Self, DestinationError> {
        let visible =
            (1..=4096).contains(&token.expose().len()) && token.expose().bytes().all(|b| b.is_ascii_graphic());
        if !visible || !matches!(self.target, Target::Whip(_) | Target::Whep(_)) {
            return Err(DestinationError::Token);
        }
        self.token = Some(token);
        Ok(self)
    }

    /// What is there, in typed parts.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The bearer token.
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// What is connected to; None for a file, and where others connect to us.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.target {
            Target::Rtmp(rtmp) => Some(&rtmp.endpoint),
            Target::Srt(Srt { mode: SrtMode::Caller(endpoint), .. }) => Some(endpoint),
            Target::Whip(web) | Target::Whep(web) | Target::Http(web) => Some(&web.endpoint),
            Target::Rtsp(rtsp) => Some(&rtsp.endpoint),
            Target::Rtp(endpoint) => Some(endpoint),
            Target::Srt(Srt { mode: SrtMode::Listener(_), .. }) | Target::File(_) => None,
        }
    }

    /// How it is spoken to, in one word: `rtmp`, `srt`, `whip`.
    pub fn kind(&self) -> &'static str {
        match &self.target {
            Target::Rtmp(Rtmp { tls: false, .. }) => "rtmp",
            Target::Rtmp(Rtmp { tls: true, .. }) => "rtmps",
            Target::Srt(_) => "srt",
            Target::Whip(_) => "whip",
            Target::Whep(_) => "whep",
            Target::Http(_) => "http",
            Target::Rtsp(_) => "rtsp",
            Target::Rtp(_) => "rtp",
            Target::File(_) => "file",
        }
    }

    /// What people may see: `rtmp://live.example/app/…`.
    pub fn redacted(&self) -> String {
        self.target.to_string()
    }

    /// Everything, for the link.
    pub fn secret_form(&self) -> SecretForm {
        SecretForm {
            url: self.text.expose().to_owned(),
            token: self.token.as_ref().map(|token| token.expose().to_owned()),
            output: self.output,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({})", self.target)
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.target)
    }
}

/// A destination with its secrets, for messages between our own processes. It goes into nothing that others see.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretForm {
    url: String,
    token: Option<String>,
    output: bool,
}

impl SecretForm {
    /// The destination again.
    ///
    /// # Errors
    /// It was not made by [`Destination::secret_form`].
    pub fn open(&self) -> Result<Destination, DestinationError> {
        let destination = Destination::new(&self.url, self.output)?;
        match &self.token {
            Some(token) => destination.with_token(Secret::from(token.clone())),
            None => Ok(destination),
        }
    }
}

impl fmt::Debug for SecretForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretForm(…)")
    }
}
