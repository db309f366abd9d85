//! Validation of configuration values that have the right type.
//!
//! Owns: [`Config::check`] and the bounds of values. Does not know: the origin of a value, which [`super::layers`] adds
//! to the error. In: a [`Config`]. Out: all [`Invalid`] values.

use std::net::IpAddr;

use super::{Config, Http, Inputs, jwks};
use crate::media::{Kind, Size};

/// Minimum length of a token key in bytes: the output size of SHA-256 (RFC 7518 §3.2).
pub const KEY_MIN_BYTES: usize = 32;

/// Largest canvas: buffer pools and encoders are dimensioned for it.
const CANVAS_MAX: Size = Size::new(1920, 1080);
/// Smallest canvas with a readable tile.
const CANVAS_MIN: Size = Size::new(160, 90);
/// Longest transition, in milliseconds.
const TRANSITION_MAX_MS: u32 = 1_000;

/// A value of the right type that is invalid.
pub(super) struct Invalid {
    /// The key, `section.key`.
    pub(super) key: &'static str,
    /// What is wrong and how to fix it.
    pub(super) reason: String,
}

/// The invalid values found so far.
#[derive(Default)]
pub(super) struct Findings(Vec<Invalid>);

impl Findings {
    /// Adds an invalid value.
    pub(super) fn add(&mut self, key: &'static str, reason: impl Into<String>) {
        self.0.push(Invalid { key, reason: reason.into() });
    }

    /// Adds an invalid value unless `valid`.
    pub(super) fn require(&mut self, valid: bool, key: &'static str, reason: impl Into<String>) {
        if !valid {
            self.add(key, reason);
        }
    }
}

impl Http {
    fn check(&self, findings: &mut Findings) {
        let is_host = |host: &String| !host.is_empty() && !host.contains([':', '/', ' ', '*']);
        for host in self.hosts.iter().filter(|host| !is_host(host)) {
            findings.add("http.hosts", format!("`{host}` is not a host name: write it like calls.example.org"));
        }
        // An origin is a scheme and an authority, without a path (RFC 6454 section 6.2).
        let is_origin = |origin: &String| {
            let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            authority.is_some_and(|authority| !authority.is_empty() && !authority.contains(['/', ' ', '*', ';', ',']))
        };
        for (key, origins) in [("http.origins", &self.origins), ("http.frame_ancestors", &self.frame_ancestors)] {
            for origin in origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
                let reason =
                    format!("`{origin}` is not an origin: write it like https://app.example.org, without a path");
                findings.add(key, reason);
            }
        }
        findings.require(
            !self.proxy_protocol || !self.trusted_proxies.is_empty(),
            "http.proxy_protocol",
            "needs the networks of the proxies in http.trusted_proxies",
        );
    }
}

impl Config {
    /// All invalid values, in the order of the sections.
    pub(super) fn check(&self) -> Vec<Invalid> {
        let mut findings = Findings::default();
        self.check_video(&mut findings);
        let has_valid_video = findings.0.is_empty();
        self.check_access(&mut findings);
        self.check_media(&mut findings);
        self.tls.check(&mut findings);
        self.turn.check(&mut findings);
        self.upload.check(&mut findings);
        self.filters.check(&mut findings);
        self.check_tiers(&mut findings, has_valid_video);
        self.check_numbers(&mut findings);
        self.processes.check(&mut findings);
        findings.0
    }

    fn check_video(&self, findings: &mut Findings) {
        let Size { width, height } = self.video.canvas;
        if width > CANVAS_MAX.width || height > CANVAS_MAX.height {
            findings.add("video.canvas", format!("must not be larger than {CANVAS_MAX}"));
        } else if width < CANVAS_MIN.width || height < CANVAS_MIN.height {
            findings.add("video.canvas", format!("must not be smaller than {CANVAS_MIN}"));
        } else if width % 2 != 0 || height % 2 != 0 {
            findings.add("video.canvas", "width and height must be even");
        }
        let largest = self.video.max_source;
        let fits = largest.width >= CANVAS_MIN.width
            && largest.height >= CANVAS_MIN.height
            && largest.width.max(largest.height) <= 4096;
        findings.require(fits, "video.max_source", format!("must be {CANVAS_MIN} to 4096x4096"));
        findings.require((1..=60).contains(&self.video.fps), "video.fps", "must be 1 to 60");
        findings.require(
            self.video.transition_ms <= TRANSITION_MAX_MS,
            "video.transition_ms",
            format!("must be 0 (no transitions) to {TRANSITION_MAX_MS}"),
        );
        let codecs = &self.video.codecs;
        findings.require(!codecs.is_empty(), "video.codecs", "must name at least one of vp8, h264, vp9, av1");
        findings.require(
            codecs.iter().all(|codec| codec.kind() == Kind::Video),
            "video.codecs",
            "must contain video codecs only: vp8, h264, vp9, av1",
        );
    }

    fn check_access(&self, findings: &mut Findings) {
        if let Some(key) = &self.auth.key
            && key.expose().len() < KEY_MIN_BYTES
        {
            let reason = format!(
                "the key has {} bytes and needs at least {KEY_MIN_BYTES}: make one with `openssl rand -base64 32`",
                key.expose().len()
            );
            findings.add("auth.key", reason);
        }
        if let Some(jwks) = &self.auth.jwks
            && let Err(reason) = jwks::parse(jwks.expose())
        {
            findings.add("auth.jwks", reason);
        }
        let is_open = !self.auth.has_key() && !self.auth.insecure;
        if !self.http.bind.ip().to_canonical().is_loopback() && is_open {
            let reason = format!(
                "without a key commingle serves loopback only, and {} is not loopback: make a key with \
                 `openssl rand -base64 32`, write it to a file and pass that with `--key-file` (or set \
                 COMMINGLE_AUTH_KEY), or pass `--insecure` to disable authentication",
                self.http.bind.ip()
            );
            findings.add("http.bind", reason);
        }
        self.http.check(findings);
        let Inputs { rtmp_port, rtmp_bind, .. } = self.inputs;
        findings.require(
            rtmp_port == 0 || rtmp_bind.to_canonical().is_loopback() || !is_open,
            "inputs.rtmp_bind",
            "without a key, encoders on this machine only may publish: make a key, see http.bind, or pass `--insecure`",
        );
    }

    fn check_media(&self, findings: &mut Findings) {
        findings.require(
            !self.media.public_ips.iter().any(IpAddr::is_unspecified),
            "media.public_ips",
            "must be reachable addresses, not the unspecified address",
        );
        let Some(server) = &self.media.stun_server else { return };
        let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            findings.add("media.stun_server", "must be HOST:PORT, such as stun.example.org:3478");
        } else if !self.media.public_ips.is_empty() {
            findings.add("media.stun_server", "is not needed with media.public_ips: set only one of the two");
        }
    }

    /// The ladder depends on canvas and frame rate, so it is checked only with valid ones.
    fn check_tiers(&self, findings: &mut Findings, has_valid_video: bool) {
        let tiers = &self.tiers;
        findings.require((16..=128).contains(&tiers.sound_kbps), "tiers.sound_kbps", "must be 16 to 128");
        findings.require((16..=64).contains(&tiers.thin_sound_kbps), "tiers.thin_sound_kbps", "must be 16 to 64");
        findings.require(
            [20, 40, 60].contains(&tiers.thin_sound_ms),
            "tiers.thin_sound_ms",
            "must be 20, 40 or 60: durations of Opus packets",
        );
        if let (true, Err(error)) = (has_valid_video, self.ladder().validate()) {
            findings.add("tiers", error.to_string());
        }
    }

    /// Refuses limits of zero, which would mean "none allowed" and not "unlimited".
    fn check_numbers(&self, findings: &mut Findings) {
        let (rooms, limits) = (&self.rooms, &self.limits);
        findings.require(rooms.chat_history <= 1_000, "rooms.chat_history", "must be 0 to 1000");
        let least: [(&'static str, usize, usize); 26] = [
            ("rooms.max_participants", rooms.max_participants as usize, 1),
            ("rooms.max_viewers", rooms.max_viewers as usize, 1),
            ("rooms.max_inputs", rooms.max_inputs as usize, 1),
            ("rooms.max_outputs", rooms.max_outputs as usize, 1),
            ("rooms.max_rooms", rooms.max_rooms as usize, 1),
            ("limits.sdp_bytes", limits.sdp_bytes, 1024),
            ("limits.patch_bytes", limits.patch_bytes, 1024),
            ("limits.message_bytes", limits.message_bytes, 1024),
            ("limits.joins_per_second", limits.joins_per_second as usize, 1),
            ("limits.joins_burst", limits.joins_burst as usize, 1),
            ("limits.pending_per_address", limits.pending_per_address, 1),
            ("limits.pending_total", limits.pending_total, 1),
            ("limits.pending_seconds", limits.pending_seconds as usize, 1),
            ("limits.session_requests_per_second", limits.session_requests_per_second as usize, 1),
            ("limits.session_requests_burst", limits.session_requests_burst as usize, 1),
            ("limits.header_seconds", limits.header_seconds as usize, 1),
            ("limits.request_seconds", limits.request_seconds as usize, 1),
            ("limits.connections", limits.connections, 1),
            ("limits.connections_per_address", limits.connections_per_address, 1),
            ("limits.write_seconds", limits.write_seconds as usize, 1),
            ("limits.event_streams_per_address", limits.event_streams_per_address, 1),
            ("limits.event_streams_per_session", limits.event_streams_per_session, 1),
            ("limits.event_streams_per_token", limits.event_streams_per_token, 1),
            ("limits.changes_per_second", limits.changes_per_second as usize, 1),
            ("limits.changes_burst", limits.changes_burst as usize, 1),
            ("limits.seats_per_token", limits.seats_per_token, 1),
        ];
        for (key, value, least) in least {
            findings.require(value >= least, key, format!("{value} is too small: at least {least}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_stun_server_needs_host_and_port_and_excludes_public_ips() {
        let mut config = Config::default();
        let servers = [
            ("stun.example.org:3478", true),
            ("[2001:db8::1]:3478", true),
            ("stun.example.org", false),
            (":3478", false),
            ("stun.example.org:0", false),
        ];
        for (server, good) in servers {
            config.media.stun_server = Some(server.to_owned());
            assert_eq!(config.check().is_empty(), good, "{server}");
        }
        config.media.stun_server = Some("stun.example.org:3478".to_owned());
        config.media.public_ips = vec![Ipv4Addr::LOCALHOST.into()];
        assert_eq!(keys(&config), ["media.stun_server"]);
    }

    fn keys(config: &Config) -> Vec<&'static str> {
        config.check().iter().map(|invalid| invalid.key).collect()
    }

    #[test]
    fn all_invalid_values_are_found() {
        let mut config = Config::default();
        config.video.canvas = Size::new(1281, 720);
        config.video.fps = 0;
        config.auth.key = Some("short".to_owned().into());
        config.turn.credential_seconds = 1;
        config.upload.part_mib = 0;
        config.limits.connections = 0;
        let expected = [
            "video.canvas",
            "video.fps",
            "auth.key",
            "turn.credential_seconds",
            "upload.part_mib",
            "limits.connections",
        ];
        assert_eq!(keys(&config), expected);
    }
}
