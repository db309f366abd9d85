//! Configuration: keys, defaults and validation.
//!
//! Owns: [`Config`] and its validation. Does not know: what the values are used for. In: defaults, file, environment
//! and command line, read by [`load`]. Out: a valid [`Config`], or an error that names the origin of the invalid value.
//! `assets/commingle.toml` is the documented sample; a test keeps it equal to the defaults here.

mod check;
mod error;
mod filters;
mod jwks;
mod layers;
mod processes;
mod reload;
mod tls;
mod turn;
mod upload;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::check::Findings;
pub use self::check::KEY_MIN_BYTES;
pub use self::error::{ConfigError, ConfigErrors};
pub use self::filters::Filters;
pub use self::jwks::{KeyMaterial, VerificationKey, parse as parse_jwks};
#[cfg(any(test, fuzzing))]
pub(crate) use self::layers::fuzz;
pub use self::layers::{Override, load, unknown_variables};
pub use self::processes::Processes;
pub use self::reload::{Change, Reload};
pub use self::tls::{Tls, TlsMode};
pub use self::turn::Turn;
pub use self::upload::Upload;
use crate::destination::{Guard, Network};
use crate::media::{Codec, Size, Sounds};
pub use crate::secret::Secret;
use crate::tier::{Ladder, TierSpec};

/// The sample file with all keys, defaults and comments, printed by `commingle config print-default`.
pub const SAMPLE: &str = include_str!("../../assets/commingle.toml");

/// The complete configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Section `[http]`: the HTTP server.
    pub http: Http,
    /// Section `[tls]`: TLS of the HTTP and TURN servers.
    pub tls: Tls,
    /// Section `[media]`: the media port.
    pub media: Media,
    /// Section `[turn]`: the TURN server.
    pub turn: Turn,
    /// Section `[auth]`: authentication of API requests.
    pub auth: Auth,
    /// Section `[data]`: the data folder.
    pub data: Data,
    /// Section `[recordings]`.
    pub recordings: Recordings,
    /// Section `[upload]`: the object store for recordings.
    pub upload: Upload,
    /// Section `[rooms]`: creation and limits of rooms.
    pub rooms: Rooms,
    /// Section `[video]`: canvas and encoders.
    pub video: Video,
    /// Section `[filters]`: filters of pictures and sound.
    pub filters: Filters,
    /// Section `[tiers]`: the quality ladder.
    pub tiers: Tiers,
    /// Section `[outputs]`: allowed destinations of broadcasts.
    pub outputs: Outputs,
    /// Section `[inputs]`: allowed sources of inputs, and the RTMP listener.
    pub inputs: Inputs,
    /// Section `[limits]`: sizes, rates and timeouts of requests.
    pub limits: Limits,
    /// Section `[processes]`: the memory of child processes.
    pub processes: Processes,
}

/// Section `[http]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Listen address; port 0 selects a free port.
    pub bind: SocketAddr,
    /// Host names under which a server without a key is reached, besides `localhost` and the names in `[tls]`.
    pub hosts: Vec<String>,
    /// Origins (RFC 6454) of web pages that may use the whole API, or `*`.
    pub origins: Vec<String>,
    /// Origins of web pages that may show the pages of this server in a frame, or `*`.
    pub frame_ancestors: Vec<String>,
    /// Networks of proxies whose [`forwarded_header`](Self::forwarded_header) is believed.
    pub trusted_proxies: Vec<Network>,
    /// The header in which trusted proxies add the address of their client.
    pub forwarded_header: ForwardedHeader,
    /// Connections of trusted proxies begin with a header of the PROXY protocol, version 2.
    pub proxy_protocol: bool,
}

/// The header in which proxies add the address of their client. A client can send both, and a proxy passes the other
/// one on unchanged, so only one is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Section `[media]`: the UDP port for media, also used for ICE over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// Port; 0 selects a free one.
    pub port: u16,
    /// Listen address.
    pub bind: IpAddr,
    /// Addresses announced as ICE candidates instead of the machine's own (1:1 NAT).
    pub public_ips: Vec<IpAddr>,
    /// STUN server (HOST:PORT) that is asked for the public address at start and every minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stun_server: Option<String>,
    /// Also accept ICE over TCP (RFC 6544) on the same port number.
    pub tcp: bool,
}

/// Section `[auth]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// HS256 key of tokens; after [`load`] also a key read from `key_file`.
    #[serde(skip_serializing)]
    pub key: Option<Secret>,
    /// File that contains the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// A JSON Web Key Set with more keys that verify tokens; after [`load`] also a set read from `jwks_file`.
    #[serde(skip_serializing)]
    pub jwks: Option<Secret>,
    /// File that contains the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// Serve non-loopback addresses without a key.
    pub insecure: bool,
}

impl Auth {
    /// Whether callers need a token.
    pub const fn has_key(&self) -> bool {
        self.key.is_some() || self.jwks.is_some()
    }
}

/// Section `[data]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// The data folder; recordings are in its subfolder `recordings`.
    pub dir: PathBuf,
}

/// Section `[recordings]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recordings {
    /// Recordings stop when less disk space is free, in megabytes.
    pub floor_mb: u32,
}

/// Section `[rooms]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rooms {
    /// Create a room when its first participant joins.
    pub auto_create: bool,
    /// Accept WHEP viewers while no participant sends.
    pub watch_empty: bool,
    /// Let the only two participants of a room exchange media directly if both support it.
    pub direct_for_two: bool,
    /// Most participants and publishers of a room.
    pub max_participants: u32,
    /// Most viewers of a room.
    pub max_viewers: u32,
    /// Most concurrent recordings and broadcasts of a room.
    pub max_outputs: u32,
    /// Most concurrent inputs of a room.
    pub max_inputs: u32,
    /// Most concurrent rooms.
    pub max_rooms: u32,
    /// Seconds for which an empty room and its mixer are kept.
    pub linger_seconds: u32,
    /// Most chat messages of a room that are kept for those who come; 0 for none.
    pub chat_history: u32,
}

impl Rooms {
    /// The time for which an empty room is kept.
    pub fn linger(&self) -> Duration {
        Duration::from_secs(self.linger_seconds.into())
    }
}

/// Section `[video]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Video {
    /// Size of the composed video at the tier `high`, in pixels; even.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub canvas: Size,
    /// Frame rate of the composed video, 1 to 60 frames per second.
    pub fps: u32,
    /// Codecs that may be encoded, in order of preference.
    pub codecs: Vec<Codec>,
    /// The H.264 encoder implementation.
    pub h264_encoder: H264Encoder,
    /// Largest frame size that is decoded from a source, in pixels.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub max_source: Size,
    /// Time in which tiles move to new places, in milliseconds; 0 for no transitions.
    pub transition_ms: u32,
}

/// Section `[tiers]`: the quality ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tiers {
    /// Bitrate of the tier `high` in kbit/s; its size and frame rate are those of the canvas.
    pub high_kbps: u32,
    /// Frame size of the tier `medium`.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub medium_size: Size,
    /// Frame rate of the tier `medium`, in frames per second.
    pub medium_fps: u32,
    /// Bitrate of the tier `medium` in kbit/s.
    pub medium_kbps: u32,
    /// Frame size of the tier `low`.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub low_size: Size,
    /// Frame rate of the tier `low`, in frames per second.
    pub low_fps: u32,
    /// Bitrate of the tier `low` in kbit/s.
    pub low_kbps: u32,
    /// Frame size of the tier `slides`, which has a low frame rate and high sharpness.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub slides_size: Size,
    /// Frame rate of the tier `slides`, in frames per second.
    pub slides_fps: u32,
    /// Bitrate of the tier `slides` in kbit/s.
    pub slides_kbps: u32,
    /// Audio bitrate of the tiers `high` and `medium` in kbit/s.
    pub sound_kbps: u32,
    /// Audio bitrate of the lower tiers in kbit/s.
    pub thin_sound_kbps: u32,
    /// Audio packet duration of the lower tiers in milliseconds: 20, 40 or 60.
    pub thin_sound_ms: u32,
}

/// H.264 encoder implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum H264Encoder {
    /// x264: less CPU at the same quality.
    #[default]
    X264,
    /// Cisco OpenH264.
    OpenH264,
}

/// Section `[outputs]`: addresses to which broadcasts may connect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outputs {
    /// Also allow private networks and this machine.
    pub allow_private: bool,
    /// Also allow these networks, of any kind.
    pub allow: Vec<Network>,
}

impl Outputs {
    /// The destination guard of broadcasts.
    pub fn guard(&self) -> Guard {
        Guard { allow_private: self.allow_private, allow: self.allow.clone() }
    }
}

/// Section `[inputs]`: addresses to which inputs may connect, and the RTMP listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inputs {
    /// Also allow private networks and this machine.
    pub allow_private: bool,
    /// Also allow these networks, of any kind.
    pub allow: Vec<Network>,
    /// Port to which encoders publish by RTMP; 0 disables it.
    pub rtmp_port: u16,
    /// Listen address of the RTMP port.
    pub rtmp_bind: IpAddr,
    /// Folder of `file:` inputs; `media` in the data folder if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_dir: Option<PathBuf>,
}

impl Inputs {
    /// The destination guard of inputs.
    pub fn guard(&self) -> Guard {
        Guard { allow_private: self.allow_private, allow: self.allow.clone() }
    }
}

/// Section `[limits]`: sizes, rates and timeouts of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest SDP offer in bytes.
    pub sdp_bytes: usize,
    /// Largest trickle ICE fragment or JSON document in bytes.
    pub patch_bytes: usize,
    /// Largest WebSocket message in bytes.
    pub message_bytes: usize,
    /// Sustained joins per second and address.
    pub joins_per_second: u32,
    /// Burst of joins per address.
    pub joins_burst: u32,
    /// Most joins of one address that are not connected yet.
    pub pending_per_address: usize,
    /// Most joins of all addresses that are not connected yet.
    pub pending_total: usize,
    /// Seconds after which an unconnected join no longer counts.
    pub pending_seconds: u32,
    /// Sustained session requests (PATCH, DELETE) per second and address.
    pub session_requests_per_second: u32,
    /// Burst of session requests per address.
    pub session_requests_burst: u32,
    /// Timeout of a request's header in seconds.
    pub header_seconds: u32,
    /// Timeout of a complete request in seconds.
    pub request_seconds: u32,
    /// Most concurrent HTTP connections.
    pub connections: usize,
    /// Most concurrent HTTP connections of one address; trusted proxies are exempt.
    pub connections_per_address: usize,
    /// Seconds after which a connection is closed whose client reads nothing of a response.
    pub write_seconds: u32,
    /// Most open WebSockets and player event streams of one address.
    pub event_streams_per_address: usize,
    /// Most open WebSockets and player event streams of one session.
    pub event_streams_per_session: usize,
    /// Most open WebSockets that one token opens without a session.
    pub event_streams_per_token: usize,
    /// Sustained changes (PATCH, PUT, POST, DELETE, messages on WebSockets) per second and participant; without a
    /// session, per token or address. Operators are exempt.
    pub changes_per_second: u32,
    /// Burst of changes.
    pub changes_burst: u32,
    /// Most participants and publishers that join with one token at a time; operators' tokens are exempt.
    pub seats_per_token: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            hosts: Vec::new(),
            origins: Vec::new(),
            frame_ancestors: Vec::new(),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::XForwardedFor,
            proxy_protocol: false,
        }
    }
}

impl Default for Media {
    fn default() -> Self {
        Self { port: 8189, bind: Ipv4Addr::UNSPECIFIED.into(), public_ips: Vec::new(), stun_server: None, tcp: true }
    }
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: "data".into() }
    }
}

impl Default for Recordings {
    fn default() -> Self {
        Self { floor_mb: 500 }
    }
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            allow_private: false,
            allow: Vec::new(),
            rtmp_port: 0,
            rtmp_bind: Ipv4Addr::LOCALHOST.into(),
            media_dir: None,
        }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            auto_create: true,
            watch_empty: true,
            direct_for_two: false,
            max_participants: 64,
            max_viewers: 2000,
            max_outputs: 16,
            max_inputs: 8,
            max_rooms: 32,
            linger_seconds: 10,
            chat_history: 200,
        }
    }
}

impl Default for Video {
    fn default() -> Self {
        Self {
            canvas: Size::new(1280, 720),
            fps: 30,
            codecs: vec![Codec::Vp8, Codec::H264],
            h264_encoder: H264Encoder::default(),
            max_source: Size::new(1920, 1080),
            transition_ms: 250,
        }
    }
}

impl Default for Tiers {
    fn default() -> Self {
        let Ladder { high, medium, low, slides, sounds } = Ladder::default();
        Self {
            high_kbps: high.bitrate_kbps,
            medium_size: medium.size,
            medium_fps: medium.fps,
            medium_kbps: medium.bitrate_kbps,
            low_size: low.size,
            low_fps: low.fps,
            low_kbps: low.bitrate_kbps,
            slides_size: slides.size,
            slides_fps: slides.fps,
            slides_kbps: slides.bitrate_kbps,
            sound_kbps: sounds.full.bitrate_kbps,
            thin_sound_kbps: sounds.thin.bitrate_kbps,
            thin_sound_ms: sounds.thin.packet_ms,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sdp_bytes: 64 * 1024,
            patch_bytes: 8 * 1024,
            message_bytes: 64 * 1024,
            joins_per_second: 10,
            joins_burst: 50,
            pending_per_address: 20,
            pending_total: 500,
            pending_seconds: 15,
            session_requests_per_second: 100,
            session_requests_burst: 1000,
            header_seconds: 10,
            request_seconds: 10,
            connections: 4096,
            connections_per_address: 1024,
            write_seconds: 30,
            event_streams_per_address: 512,
            event_streams_per_session: 8,
            event_streams_per_token: 64,
            changes_per_second: 20,
            changes_burst: 100,
            seats_per_token: 32,
        }
    }
}

impl Config {
    /// The folder of `file:` inputs.
    pub fn media_dir(&self) -> PathBuf {
        self.inputs.media_dir.clone().unwrap_or_else(|| self.data.dir.join("media"))
    }

    /// The quality ladder; no tier exceeds size and frame rate of the canvas.
    pub fn ladder(&self) -> Ladder {
        let Video { canvas, fps: canvas_fps, .. } = self.video;
        let rung = |size: Size, fps: u32, bitrate_kbps| TierSpec {
            size: Size::new(size.width.min(canvas.width), size.height.min(canvas.height)),
            fps: fps.min(canvas_fps),
            bitrate_kbps,
        };
        let tiers = &self.tiers;
        Ladder {
            high: rung(canvas, canvas_fps, tiers.high_kbps),
            medium: rung(tiers.medium_size, tiers.medium_fps, tiers.medium_kbps),
            low: rung(tiers.low_size, tiers.low_fps, tiers.low_kbps),
            slides: rung(tiers.slides_size, tiers.slides_fps, tiers.slides_kbps),
            sounds: Sounds::new(tiers.sound_kbps, tiers.thin_sound_kbps, tiers.thin_sound_ms),
        }
    }
}

fn size_from_text<'de, D: Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
    let text = String::deserialize(d)?;
    text.split_once('x')
        .and_then(|(width, height)| Some(Size::new(width.parse().ok()?, height.parse().ok()?)))
        .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a size: it looks like 1280x720")))
}

fn size_to_text<S: Serializer>(size: &Size, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_equals_the_defaults() {
        let sample: Config = toml::from_str(SAMPLE).expect("the sample is valid");
        assert_eq!(sample, Config::default());
        assert!(sample.check().is_empty());
    }

    #[test]
    fn the_sample_contains_every_key() {
        let table = toml::Table::try_from(Config::default()).expect("plain data");
        for (section, keys) in &table {
            let (_, rest) = SAMPLE.split_once(&format!("[{section}]\n")).expect("each section is in the sample");
            for key in keys.as_table().expect("sections are tables").keys() {
                assert!(rest.contains(&format!("\n{key} = ")), "{section}.{key} is missing from the sample");
            }
        }
        let upload = ["bucket", "endpoint", "access_key_id", "secret_access_key", "secret_access_key_file"];
        let upload = upload.map(|key| format!("\n# {key} = "));
        let tls = ["# cert = ", "# acme_root = ", "# acme_email = "];
        let turn = ["# port = 3478", "# tls_port = 5349", "# secret = ", "# secret_file = "];
        let others = ["# key = ", "# key_file = ", "# media_dir = ", "# dir = ", "# stun_server = "];
        let others = others.into_iter().chain(tls).chain(turn).map(|key| format!("\n{key}"));
        for optional in upload.into_iter().chain(others) {
            assert!(SAMPLE.contains(&optional), "{optional}");
        }
    }

    #[test]
    fn no_tier_exceeds_the_canvas() {
        let mut config = Config::default();
        assert_eq!(config.ladder(), Ladder::default());
        config.video.canvas = Size::new(480, 270);
        config.video.fps = 10;
        let ladder = config.ladder();
        assert_eq!((ladder.medium.size, ladder.low.size), (Size::new(480, 270), Size::new(320, 180)));
        assert_eq!((ladder.medium.fps, ladder.low.fps), (10, 10));
        assert!(config.check().is_empty());
        config.tiers.low_kbps = 501;
        config.tiers.thin_sound_ms = 50;
        let found = config.check();
        let keys: Vec<_> = found.iter().map(|invalid| invalid.key).collect();
        assert_eq!(keys, ["tiers.thin_sound_ms", "tiers"]);
        assert!(found[1].reason.contains("low"), "{}", found[1].reason);
    }

    #[test]
    fn debug_and_toml_output_contain_no_secrets() {
        let mut config = Config::default();
        config.auth.key = Some("0123456789abcdef0123456789abcdef".to_owned().into());
        config.upload.secret_access_key = Some("0123".to_owned().into());
        assert!(!format!("{config:?}").contains("0123"));
        assert!(!toml::to_string(&config).expect("plain data").contains("0123"));
    }
}
