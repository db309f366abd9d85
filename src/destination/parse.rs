//! Parses URLs into [`Target`]s.
//!
//! Owns: the syntax and limits of each scheme. Does not know: the guard. In: text. Out: a [`Target`] or an error.
//!
//! The crate `url` normalizes hosts of `http` and similar schemes as browsers do (decimal, octal and hexadecimal IPv4
//! addresses, IDNA), but leaves hosts of other schemes unchanged. So each host is parsed once more as one of `http`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use url::Url;

use super::target::{Rtmp, Rtsp, Srt, SrtMode, Target, Web};
use super::{DestinationError, Endpoint, Host, URL_MAX};
use crate::secret::Secret;

type Result<T> = std::result::Result<T, DestinationError>;

const RTMP: &str = "rtmp://HOST/APP/KEY";
const SRT: &str = "srt://HOST:PORT, or srt://:PORT?mode=listener";
const WHIP: &str = "whip+https://HOST/PATH";
const WHEP: &str = "whep+https://HOST/PATH";
const RTP: &str = "rtp://HOST:PORT";
const RTSP: &str = "rtsp://HOST/PATH";
const HTTP: &str = "https://HOST/PATH";
const OUTPUTS: &str = "one of rtmp://HOST/APP/KEY, rtmps://…, srt://HOST:PORT, whip+https://HOST/PATH, rtp://HOST:PORT";
const INPUTS: &str = "one of rtmp://HOST/APP/KEY, rtmps://…, srt://HOST:PORT, rtsp://HOST/PATH, https://HOST/PATH, \
                      whep+https://HOST/PATH, file:NAME";

/// Default SRT latency, the same as in libsrt.
const SRT_LATENCY: Duration = Duration::from_millis(120);

pub(super) fn output(text: &str) -> Result<Target> {
    match scheme(text, OUTPUTS)?.as_str() {
        scheme @ ("rtmp" | "rtmps") => rtmp(text, scheme == "rtmps"),
        "srt" => srt(text),
        "whip+https" | "whip+http" => Ok(Target::Whip(web(&text["whip+".len()..], WHIP, false)?)),
        "rtp" => rtp(text),
        _ => Err(DestinationError::Scheme(OUTPUTS)),
    }
}

pub(super) fn input(text: &str) -> Result<Target> {
    match scheme(text, INPUTS)?.as_str() {
        scheme @ ("rtmp" | "rtmps") => rtmp(text, scheme == "rtmps"),
        "srt" => srt(text),
        "rtsp" => rtsp(text),
        "http" | "https" => Ok(Target::Http(web(text, HTTP, true)?)),
        "whep+https" | "whep+http" => Ok(Target::Whep(web(&text["whep+".len()..], WHEP, false)?)),
        "file" => file(&text["file:".len()..]),
        _ => Err(DestinationError::Scheme(INPUTS)),
    }
}

/// The scheme in lower case. Refuses texts that are too long or have white space.
fn scheme(text: &str, write: &'static str) -> Result<String> {
    if text.len() > URL_MAX {
        return Err(DestinationError::TooLong);
    }
    let (scheme, _) = text.split_once(':').ok_or(DestinationError::NotAUrl(write))?;
    let scheme = scheme.to_ascii_lowercase();
    let blank = |c: char| c.is_control() || (c.is_whitespace() && (scheme != "file" || c != ' '));
    if text.contains(blank) {
        return Err(DestinationError::Blank);
    }
    Ok(scheme)
}

fn url(text: &str, write: &'static str) -> Result<Url> {
    let parsed = Url::parse(text).map_err(|error| match error {
        url::ParseError::InvalidPort => DestinationError::Port(write),
        url::ParseError::RelativeUrlWithoutBase => DestinationError::NotAUrl(write),
        _ => DestinationError::Host(write),
    });
    match parsed {
        Ok(url) if url.fragment().is_none() => Ok(url),
        Ok(_) => Err(user_info_character(text).unwrap_or(DestinationError::Fragment)),
        Err(error) => Err(user_info_character(text).unwrap_or(error)),
    }
}

/// The character in a user name or password that ends the host part of a URL, so that the URL is misunderstood: one
/// before the last `@`, with a `:` before it as between name and password.
fn user_info_character(text: &str) -> Option<DestinationError> {
    let (_, rest) = text.split_once("://")?;
    let login = &rest[..rest.rfind('@')?];
    let at = login.find(['#', '/', '?', '\\'])?;
    let (_, password) = login[..at].rsplit_once(':')?;
    // Else it is a port, and the `@` belongs to the path.
    let is_port = !password.is_empty() && password.bytes().all(|byte| byte.is_ascii_digit());
    if is_port && login.as_bytes()[at] != b'#' {
        return None;
    }
    let (character, escape) = match login.as_bytes()[at] {
        b'#' => ('#', "%23"),
        b'/' => ('/', "%2F"),
        b'?' => ('?', "%3F"),
        _ => ('\\', "%5C"),
    };
    Some(DestinationError::UserInfoCharacter { character, escape })
}

fn no_login(url: &Url, instead: &'static str) -> Result<()> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(());
    }
    Err(DestinationError::UserInfo(instead))
}

fn endpoint(url: &Url, usual: Option<u16>, write: &'static str) -> Result<Endpoint> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(DestinationError::Host(write))?;
    let host = match url::Host::parse(host).map_err(|_| DestinationError::Host(write))? {
        url::Host::Domain(name) => Host::Name(name),
        url::Host::Ipv4(address) => Host::Address(address.into()),
        url::Host::Ipv6(address) => Host::Address(address.into()),
    };
    let port = url.port().or(usual).filter(|port| *port != 0).ok_or(DestinationError::Port(write))?;
    Ok(Endpoint { host, port })
}

fn rtmp(text: &str, tls: bool) -> Result<Target> {
    let url = url(text, RTMP)?;
    no_login(&url, "write rtmp://HOST/APP/KEY")?;
    let endpoint = endpoint(&url, Some(Rtmp::default_port(tls)), RTMP)?;
    let path = url.path().strip_prefix('/').unwrap_or_default();
    let query = url.query().filter(|query| !query.is_empty());
    let (app, key) = match (path.rsplit_once('/'), query) {
        (Some((app, name)), None) if !name.is_empty() => (app.trim_end_matches('/').to_owned(), name.to_owned()),
        // With a query the name may be empty: `/app/?streamname=…&key=…`.
        (Some((app, name)), Some(query)) => (app.trim_end_matches('/').to_owned(), format!("{name}?{query}")),
        (Some(_), None) => return Err(DestinationError::StreamKey),
        // The application has a query: `/app?vhost=…/key`.
        (None, Some(query)) => match query.rsplit_once('/') {
            Some((_, "")) => return Err(DestinationError::StreamKey),
            Some((query, name)) => (format!("{path}?{query}"), name.to_owned()),
            None => (path.to_owned(), format!("?{query}")),
        },
        // The name of the stream is the application: `rtmp://host/stream`.
        (None, None) => (path.to_owned(), String::new()),
    };
    if app.is_empty() || app.starts_with('?') {
        return Err(DestinationError::StreamKey);
    }
    Ok(Target::Rtmp(Rtmp { tls, endpoint, app: Secret::from(app), key: Secret::from(key) }))
}

fn srt(text: &str) -> Result<Target> {
    // `srt://:PORT` is the usual notation for a listener, but not a valid URL.
    let unspecified = text["srt:".len()..].strip_prefix("//:");
    let text = unspecified.map_or_else(|| text.to_owned(), |rest| format!("srt://{}:{rest}", Ipv4Addr::UNSPECIFIED));
    // A `#` in a parameter belongs to it: stream ids begin with `#!::`.
    let text = match text.split_once('?') {
        Some((before, parameters)) => format!("{before}?{}", parameters.replace('#', "%23")),
        None => text,
    };
    let url = url(&text, SRT)?;
    no_login(&url, "use the parameters passphrase and streamid")?;
    if !matches!(url.path(), "" | "/") {
        return Err(DestinationError::NotAUrl(SRT));
    }
    let endpoint = endpoint(&url, None, SRT)?;
    let mut parameters = SrtParameters::read(&url)?;
    let passphrase = parameters.passphrase.take();
    if passphrase.as_ref().is_some_and(|text| !(10..=79).contains(&text.len()))
        || (passphrase.is_none() && parameters.pbkeylen.is_some())
    {
        return Err(DestinationError::SrtPassphrase);
    }
    let key_length = match parameters.pbkeylen.as_deref() {
        None | Some("16") => 16,
        Some("24") => 24,
        Some("32") => 32,
        Some(_) => return Err(DestinationError::SrtPassphrase),
    };
    if parameters.streamid.as_ref().is_some_and(|id| id.len() > 512) {
        return Err(DestinationError::SrtStreamId);
    }
    let latency = match parameters.latency {
        None => SRT_LATENCY,
        Some(text) => {
            let millis = text.parse().ok().filter(|millis| (20..=8_000).contains(millis));
            Duration::from_millis(millis.ok_or(DestinationError::SrtLatency)?)
        }
    };
    let mode = match (parameters.mode.as_deref(), &endpoint.host) {
        (None | Some("caller"), _) if unspecified.is_some() => return Err(DestinationError::Host(SRT)),
        (None | Some("caller"), _) => SrtMode::Caller(endpoint),
        (Some("listener"), Host::Address(address)) => SrtMode::Listener(SocketAddr::new(*address, endpoint.port)),
        (Some("listener"), Host::Name(_)) => return Err(DestinationError::Host(SRT)),
        (Some(_), _) => return Err(DestinationError::SrtMode),
    };
    let secret = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Secret::from);
    Ok(Target::Srt(Srt {
        mode,
        latency,
        passphrase: secret(passphrase),
        key_length,
        stream_id: secret(parameters.streamid),
    }))
}

#[derive(Default)]
struct SrtParameters {
    mode: Option<String>,
    latency: Option<String>,
    passphrase: Option<String>,
    pbkeylen: Option<String>,
    streamid: Option<String>,
    /// Not used: the size of a datagram is always 1316 bytes.
    pkt_size: Option<String>,
    /// Not used: only `live` is possible.
    transtype: Option<String>,
}

impl SrtParameters {
    /// Reads the parameters. They are percent-encoded (RFC 3986) and not encoded as a form: a `+` is a plus sign.
    fn read(url: &Url) -> Result<Self> {
        let mut read = Self::default();
        let pairs = url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for (name, value) in pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            let place = match name {
                "mode" => &mut read.mode,
                "latency" => &mut read.latency,
                "passphrase" => &mut read.passphrase,
                "pbkeylen" => &mut read.pbkeylen,
                "streamid" => &mut read.streamid,
                "pkt_size" | "payload_size" => &mut read.pkt_size,
                "transtype" if value == "live" => &mut read.transtype,
                _ => return Err(DestinationError::SrtParameter),
            };
            let value: Vec<u8> = percent_decoded(value).collect();
            if place.replace(String::from_utf8_lossy(&value).into_owned()).is_some() {
                return Err(DestinationError::SrtParameter);
            }
        }
        Ok(read)
    }
}

fn rtp(text: &str) -> Result<Target> {
    let url = url(text, RTP)?;
    no_login(&url, "RTP has no login")?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(DestinationError::NotAUrl(RTP));
    }
    let endpoint = endpoint(&url, None, RTP)?;
    // Audio uses the port two above, and its RTCP the next one.
    if endpoint.port > u16::MAX - 3 {
        return Err(DestinationError::RtpPort(endpoint.port));
    }
    Ok(Target::Rtp(endpoint))
}

fn rtsp(text: &str) -> Result<Target> {
    let url = url(text, RTSP)?;
    let endpoint = endpoint(&url, Some(Rtsp::PORT), RTSP)?;
    let login = (!url.username().is_empty() || url.password().is_some()).then(|| {
        let plain = |text: &str| {
            let plain: Vec<u8> = percent_decoded(text).collect();
            Secret::from(String::from_utf8_lossy(&plain).into_owned())
        };
        (plain(url.username()), plain(url.password().unwrap_or_default()))
    });
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    Ok(Target::Rtsp(Rtsp { endpoint, path: Secret::from(path), login }))
}

fn percent_decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut bytes = text.bytes();
    std::iter::from_fn(move || {
        let byte = bytes.next()?;
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let mut ahead = bytes.clone();
        if byte == b'%'
            && let (Some(high), Some(low)) = (digit(ahead.next()), digit(ahead.next()))
        {
            bytes = ahead;
            return Some((high * 16 + low) as u8);
        }
        Some(byte)
    })
}

fn web(text: &str, write: &'static str, login: bool) -> Result<Web> {
    let url = url(text, write)?;
    if !login {
        no_login(&url, "set `token` if the server requires one")?;
    }
    let tls = url.scheme() == "https";
    let endpoint = endpoint(&url, Some(Web::default_port(tls)), write)?;
    Ok(Web { tls, endpoint, url: Secret::from(String::from(url)) })
}

/// Resolves a `Location` header that the server at `base` sent.
pub(super) fn location(base: &str, location: &str) -> Result<Web> {
    let joined = Url::parse(base).and_then(|base| base.join(location)).map_err(|_| DestinationError::NotAUrl(HTTP))?;
    if !matches!(joined.scheme(), "http" | "https") || joined.as_str().len() > URL_MAX {
        return Err(DestinationError::NotAUrl(HTTP));
    }
    web(joined.as_str(), HTTP, false)
}

fn file(name: &str) -> Result<Target> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '_' | '-');
    let fine = (1..=128).contains(&name.len())
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !fine {
        return Err(DestinationError::FileName);
    }
    Ok(Target::File(name.to_owned()))
}
