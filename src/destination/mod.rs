//! Destinations: URLs of outputs and inputs, and the guard of the addresses behind them.
//!
//! Owns: the URL syntax of outputs and inputs, redaction, and the destination guard. Does not know: name resolution,
//! protocols. In: URLs, through [`Destination::output`] and [`Destination::input`]. Out: a [`Destination`] of typed
//! parts. Its `Display`, `Debug` and `Serialize` contain no secret: no user names, stream keys, passphrases, stream
//! ids, paths or queries. Only [`SecretForm`], for the link between our own processes, contains the complete URL.
//!
//! To connect, a caller resolves the name once, passes the addresses to [`Guard::choose`], and connects to the result
//! only. A second resolution could return other addresses (DNS rebinding).

mod guard;
mod parse;
mod target;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};

pub use self::guard::{AddressKind, Guard, GuardError, Network, NetworkError};
pub use self::target::{Rtmp, Rtsp, Srt, SrtMode, Target, Web};
use crate::secret::Secret;

/// Maximum length of a URL in bytes.
pub const URL_MAX: usize = 2048;

/// Why a URL is refused. Each message names the fix, and quotes nothing of the URL, which may contain secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DestinationError {
    #[error("the URL has more than {URL_MAX} bytes: write a shorter one")]
    TooLong,
    #[error("the URL has white space or control characters: remove them, or write them as %20")]
    Blank,
    #[error("this is not a URL: write {0}")]
    NotAUrl(&'static str),
    #[error("this URL scheme is not supported here: write {0}")]
    Scheme(&'static str),
    #[error("the URL has no host, or one that is neither a name nor an address: write {0}")]
    Host(&'static str),
    #[error("the URL has no port, or port 0: write {0}")]
    Port(&'static str),
    #[error("port {0} is too high: audio is sent to the port two above, so use an even one up to 65532")]
    RtpPort(u16),
    #[error("the URL has a user name or password before the host: leave them out; {0}")]
    UserInfo(&'static str),
    #[error("the user name or password has a `{character}`: write it as {escape}")]
    UserInfoCharacter { character: char, escape: &'static str },
    #[error("the URL has a `#`: write it as %23 where it belongs to a key, or leave it out")]
    Fragment,
    #[error("the URL lacks the application or the stream key: write rtmp://HOST/APP/KEY")]
    StreamKey,
    #[error(
        "srt URLs support the parameters mode, latency, passphrase, pbkeylen, streamid, pkt_size and transtype=live, \
         each once: leave out others, and write `&` in a value as %26"
    )]
    SrtParameter,
    #[error("mode must be `caller` (this server connects) or `listener` (the other side connects)")]
    SrtMode,
    #[error("latency must be 20 to 8000 milliseconds")]
    SrtLatency,
    #[error("passphrase must have 10 to 79 characters; pbkeylen needs a passphrase and must be 16, 24 or 32")]
    SrtPassphrase,
    #[error("streamid must have at most 512 bytes")]
    SrtStreamId,
    #[error(
        "a token is used with whip+https, whip+http, whep+https and whep+http only, and has 1 to 4096 visible ASCII \
         characters"
    )]
    Token,
    #[error(
        "this is not a file name of the media folder: write file:NAME, with up to 128 letters, digits, spaces, `.`, \
         `_` and `-`, beginning with a letter or digit"
    )]
    FileName,
}

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name.
    Name(String),
    /// A literal address.
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
    /// DNS name or literal address.
    pub host: Host,
    /// TCP or UDP port, never 0.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The URL of an output or input, parsed.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    target: Target,
    /// The URL as given.
    text: Secret,
    token: Option<Secret>,
    /// Parsed with the schemes of outputs, not of inputs.
    output: bool,
}

impl Destination {
    /// Parses the URL of an output (broadcast).
    ///
    /// # Errors
    /// The URL is invalid or its scheme is not one of outputs.
    pub fn output(text: &str) -> Result<Self, DestinationError> {
        Self::new(text, true)
    }

    /// Parses the URL of an input.
    ///
    /// # Errors
    /// The URL is invalid or its scheme is not one of inputs.
    pub fn input(text: &str) -> Result<Self, DestinationError> {
        Self::new(text, false)
    }

    fn new(text: &str, output: bool) -> Result<Self, DestinationError> {
        let target = if output { parse::output(text)? } else { parse::input(text)? };
        Ok(Self { target, text: Secret::from(text.to_owned()), token: None, output })
    }

    /// Adds the bearer token of a WHIP or WHEP server.
    ///
    /// # Errors
    /// [`DestinationError::Token`] for other schemes, and for a token that does not fit an `Authorization` header.
    pub fn with_token(mut self, token: Secret) -> Result<Self, DestinationError> {
        let visible =
            (1..=4096).contains(&token.expose().len()) && token.expose().bytes().all(|b| b.is_ascii_graphic());
        if !visible || !matches!(self.target, Target::Whip(_) | Target::Whep(_)) {
            return Err(DestinationError::Token);
        }
        self.token = Some(token);
        Ok(self)
    }

    /// The typed parts of the URL.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The bearer token for WHIP or WHEP.
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// The endpoint to connect to; None for a file and for an SRT listener.
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

    /// The protocol in one word: `rtmp`, `srt`, `whip`.
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

    /// The URL without secrets: `rtmp://live.example/app/…`.
    pub fn redacted(&self) -> String {
        self.target.to_string()
    }

    /// The complete URL and token, for the link to a child process.
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

/// A destination with its secrets, for messages between our own processes only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretForm {
    url: String,
    token: Option<String>,
    output: bool,
}

impl SecretForm {
    /// Restores the destination.
    ///
    /// # Errors
    /// The form was not made by [`Destination::secret_form`].
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
