//! Configuration: what can be set, what it is when nobody sets it, and what is wrong with it.
//!
//! Owns: [`Config`] and the check that its values make sense. [`load`] (in `layers`) reads it from defaults, file,
//! environment and command line, and names the origin of every wrong value. Does not know: who uses a value for what.
//! The documented sample is `assets/commingle.toml`; a test holds it equal to the defaults here.

mod check;
mod layers;
mod tls;
mod turn;
mod upload;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::check::KEY_MIN_BYTES;
use self::check::Wrong;
pub use self::layers::{ConfigError, Override, load, unknown_variables};
pub use self::tls::{Tls, TlsMode};
pub use self::turn::Turn;
pub use self::upload::Upload;
use crate::destination::{Guard, Network};
use crate::media::{Codec, Size, Sounds};
pub use crate::secret::Secret;
use crate::tier::{Ladder, TierSpec};

/// Every key with its default and a comment: what `commingle config print-default` prints.
pub const SAMPLE: &str = include_str!("../../assets/commingle.toml");

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The HTTP server.
    pub http: Http,
    /// TLS of the HTTP server and of TURN.
    pub tls: Tls,
    /// The media port.
    pub media: Media,
    /// The TURN server.
    pub turn: Turn,
    /// Who may do what.
    pub auth: Auth,
    /// What is kept on disk.
    pub data: Data,
    /// Recordings.
    pub recordings: Recordings,
    /// Where recordings are uploaded to.
    pub upload: Upload,
    /// Rooms.
    pub rooms: Rooms,
    /// The picture.
    pub video: Video,
    /// The quality ladder.
    pub tiers: Tiers,
    /// Broadcasts.
    pub outputs: Outputs,
    /// Sources from elsewhere.
    pub inputs: Inputs,
    /// What one caller may take.
    pub limits: Limits,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where it listens; port 0 takes a free one.
    pub bind: SocketAddr,
}

/// The media port: UDP, and the same number for ICE over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The address it listens at.
    pub bind: IpAddr,
    /// The addresses told to peers instead of the machine's own (NAT 1:1).
    pub public_ips: Vec<IpAddr>,
    /// A STUN server that is asked for such addresses at start, and every minute, as HOST:PORT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stun_server: Option<String>,
    /// Serve ICE over TCP on the same number.
    pub tcp: bool,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// The HS256 key; after [`load`] also the one read from `key_file`.
    #[serde(skip_serializing)]
    pub key: Option<Secret>,
    /// A file that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Serve other addresses than loopback without a key.
    pub insecure: bool,
}

/// What is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Where recordings go.
    pub dir: PathBuf,
}

/// Recordings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recordings {
    /// A recording stops when less is free on its disk, in megabytes.
    pub floor_mb: u32,
}

/// Rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rooms {
    /// Make a room when its first participant joins.
    pub auto_create: bool,
    /// Let players in by WHEP while nobody sends.
    pub watch_empty: bool,
    /// Let two who are alone in a room send to each other directly, where both can.
    pub direct_for_two: bool,
    /// The most people in one room who send.
    pub max_participants: u32,
    /// The most in one room who only watch.
    pub max_viewers: u32,
    /// The most recordings and broadcasts of one room that run at a time.
    pub max_outputs: u32,
    /// The most inputs of one room at a time.
    pub max_inputs: u32,
    /// The most rooms at a time.
    pub max_rooms: u32,
    /// How long an empty room and its mixer stay, in seconds.
    pub linger_seconds: u32,
}

impl Rooms {
    /// How long an empty room stays.
    pub fn linger(&self) -> Duration {
        Duration::from_secs(self.linger_seconds.into())
    }
}

/// The picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Video {
    /// The picture everybody gets.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub canvas: Size,
    /// Frames a second.
    pub fps: u32,
    /// The codecs to encode with.
    pub codecs: Vec<Codec>,
    /// The H.264 encoder.
    pub h264_encoder: H264Encoder,
    /// The largest picture taken from a sender.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub max_source: Size,
}

/// The quality ladder below and beside the canvas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tiers {
    /// Bitrate of the tier `high`, which has the canvas' size and rate, in kbit/s.
    pub high_kbps: u32,
    /// Size of the tier `medium`.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub medium_size: Size,
    /// Frames a second of the tier `medium`.
    pub medium_fps: u32,
    /// Bitrate of the tier `medium`, in kbit/s.
    pub medium_kbps: u32,
    /// Size of the tier `low`.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub low_size: Size,
    /// Frames a second of the tier `low`.
    pub low_fps: u32,
    /// Bitrate of the tier `low`, in kbit/s.
    pub low_kbps: u32,
    /// Size of the tier `slides`, whose pictures are seldom but sharp.
    #[serde(deserialize_with = "size_from_text", serialize_with = "size_to_text")]
    pub slides_size: Size,
    /// Frames a second of the tier `slides`.
    pub slides_fps: u32,
    /// Bitrate of the tier `slides`, in kbit/s.
    pub slides_kbps: u32,
    /// Bitrate of the sound that goes with `high` and `medium`, in kbit/s.
    pub sound_kbps: u32,
    /// Bitrate of the sound that goes with the tiers below, in kbit/s.
    pub thin_sound_kbps: u32,
    /// How much of that sound is in one packet, in milliseconds.
    pub thin_sound_ms: u32,
}

/// Which H.264 encoder is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum H264Encoder {
    /// x264: cheaper at the same quality.
    #[default]
    X264,
    /// Cisco's openh264.
    OpenH264,
}

/// Where broadcasts may go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outputs {
    /// Also private networks and this machine.
    pub allow_private: bool,
    /// Also these networks, whatever they are.
    pub allow: Vec<Network>,
}

impl Outputs {
    /// What says whether a broadcast may go to an address.
    pub fn guard(&self) -> Guard {
        Guard { allow_private: self.allow_private, allow: self.allow.clone() }
    }
}

/// Where inputs may be fetched from, and what may be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inputs {
    /// Also private networks and this machine.
    pub allow_private: bool,
    /// Also these networks, whatever they are.
    pub allow: Vec<Network>,
    /// The port that encoders push to by RTMP; 0 for none.
    pub rtmp_port: u16,
    /// The address it listens at.
    pub rtmp_bind: IpAddr,
    /// Where files are played from; `media` in the data folder where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_dir: Option<PathBuf>,
}

impl Inputs {
    /// What says whether an input may be fetched from an address.
    pub fn guard(&self) -> Guard {
        Guard { allow_private: self.allow_private, allow: self.allow.clone() }
    }
}

/// What one caller may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest SDP offer, in bytes.
    pub sdp_bytes: usize,
    /// The largest trickle fragment or JSON document, in bytes.
    pub patch_bytes: usize,
    /// The largest WebSocket message, in bytes.
    pub message_bytes: usize,
    /// Joins a second from one address in the long run.
    pub joins_per_second: u32,
    /// Joins at once from one address.
    pub joins_burst: u32,
    /// Joins from one address that have not connected yet.
    pub pending_per_address: usize,
    /// Joins from anywhere that have not connected yet.
    pub pending_total: usize,
    /// After how many seconds such a join no longer counts.
    pub pending_seconds: u32,
    /// PATCH and DELETE of sessions a second from one address in the long run.
    pub session_requests_per_second: u32,
    /// PATCH and DELETE of sessions at once from one address.
    pub session_requests_burst: u32,
    /// How long the head of a request may take, in seconds.
    pub header_seconds: u32,
    /// How long a whole request may take, in seconds.
    pub request_seconds: u32,
    /// The most HTTP connections at a time.
    pub connections: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self { bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)) }
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
        }
    }
}

impl Config {
    /// Where inputs play files from.
    pub fn media_dir(&self) -> PathBuf {
        self.inputs.media_dir.clone().unwrap_or_else(|| self.data.dir.join("media"))
    }

    /// The quality ladder of the canvas: no tier has more pixels or frames than that.
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
    fn the_sample_is_the_default() {
        let sample: Config = toml::from_str(SAMPLE).expect("the sample is valid");
        assert_eq!(sample, Config::default());
        assert!(sample.check().is_ok());
    }

    #[test]
    fn the_sample_explains_every_key() {
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
        let others = ["# key = ", "# key_file = ", "# media_dir = ", "# stun_server = "];
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
        assert!(config.check().is_ok());
        config.tiers.low_kbps = 501;
        assert!(config.check().is_err_and(|wrong| wrong.key == "tiers" && wrong.why.contains("low")));
        config.tiers.thin_sound_ms = 50;
        assert!(config.check().is_err_and(|wrong| wrong.key == "tiers.thin_sound_ms"));
    }

    #[test]
    fn debug_and_toml_never_show_the_key() {
        let mut config = Config::default();
        config.auth.key = Some("0123456789abcdef0123456789abcdef".to_owned().into());
        config.upload.secret_access_key = Some("0123".to_owned().into());
        assert!(!format!("{config:?}").contains("0123"));
        assert!(!toml::to_string(&config).expect("plain data").contains("0123"));
    }
}
