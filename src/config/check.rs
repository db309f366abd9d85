//! Validation of configuration values that have the right type.
//!
//! Owns: [`Config::check`] and the bounds of values. Does not know: the origin of a value, which [`super::layers`] adds
//! to the error. In: a [`Config`]. Out: the first [`Invalid`] value.

use std::net::IpAddr;

use super::{Config, Inputs};
use crate::media::{Kind, Size};

/// Minimum length of a token key in bytes: the output size of SHA-256 (RFC 7518 §3.2).
pub const KEY_MIN_BYTES: usize = 32;

/// Largest canvas: buffer pools and encoders are dimensioned for it.
const CANVAS_MAX: Size = Size::new(1920, 1080);
/// Smallest canvas with a readable tile.
const CANVAS_MIN: Size = Size::new(160, 90);

/// A value of the right type that is invalid.
pub(super) struct Invalid {
    /// The key, `section.key`.
    pub(super) key: &'static str,
    /// What is wrong and how to fix it.
    pub(super) reason: String,
}

/// An error for `key`, with the reason and the fix.
pub(super) fn invalid<T>(key: &'static str, reason: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { key, reason: reason.into() })
}

impl Config {
    /// Validates all values; the error is the first invalid one.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let Size { width, height } = self.video.canvas;
        if width % 2 != 0 || height % 2 != 0 {
            return invalid("video.canvas", "width and height must be even");
        }
        if width > CANVAS_MAX.width || height > CANVAS_MAX.height {
            return invalid("video.canvas", format!("must not be larger than {CANVAS_MAX}"));
        }
        if width < CANVAS_MIN.width || height < CANVAS_MIN.height {
            return invalid("video.canvas", format!("must not be smaller than {CANVAS_MIN}"));
        }
        let largest = self.video.max_source;
        if largest.width < CANVAS_MIN.width
            || largest.height < CANVAS_MIN.height
            || largest.width.max(largest.height) > 4096
        {
            return invalid("video.max_source", format!("must be {CANVAS_MIN} to 4096x4096"));
        }
        if !(1..=60).contains(&self.video.fps) {
            return invalid("video.fps", "must be 1 to 60");
        }
        if self.video.codecs.is_empty() {
            return invalid("video.codecs", "must name at least one of vp8, h264, vp9, av1");
        }
        if self.video.codecs.iter().any(|codec| codec.kind() != Kind::Video) {
            return invalid("video.codecs", "must contain video codecs only: vp8, h264, vp9, av1");
        }
        if let Some(key) = &self.auth.key
            && key.expose().len() < KEY_MIN_BYTES
        {
            let reason = format!(
                "the key has {} bytes and needs at least {KEY_MIN_BYTES}: make one with `openssl rand -base64 32`",
                key.expose().len()
            );
            return invalid("auth.key", reason);
        }
        if !self.http.bind.ip().to_canonical().is_loopback() && self.auth.key.is_none() && !self.auth.insecure {
            let reason = format!(
                "without a key commingle serves loopback only, and {} is not loopback: make a key with \
                 `openssl rand -base64 32`, write it to a file and pass that with `--key-file` (or set \
                 COMMINGLE_AUTH_KEY), or pass `--insecure` to disable authentication",
                self.http.bind.ip()
            );
            return invalid("http.bind", reason);
        }
        let Inputs { rtmp_port, rtmp_bind, .. } = self.inputs;
        if rtmp_port != 0 && !rtmp_bind.to_canonical().is_loopback() && self.auth.key.is_none() && !self.auth.insecure {
            let reason = "without a key, encoders on this machine only may publish: make a key, see http.bind, or pass \
                       `--insecure`";
            return invalid("inputs.rtmp_bind", reason);
        }
        if self.media.public_ips.iter().any(IpAddr::is_unspecified) {
            return invalid("media.public_ips", "must be reachable addresses, not the unspecified address");
        }
        if let Some(server) = &self.media.stun_server {
            let port =
                server.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return invalid("media.stun_server", "must be HOST:PORT, such as stun.example.org:3478");
            }
            if !self.media.public_ips.is_empty() {
                return invalid("media.stun_server", "is not needed with media.public_ips: set only one of the two");
            }
        }
        self.tls.check()?;
        self.turn.check()?;
        self.upload.check()?;
        if !(16..=128).contains(&self.tiers.sound_kbps) {
            return invalid("tiers.sound_kbps", "must be 16 to 128");
        }
        if !(16..=64).contains(&self.tiers.thin_sound_kbps) {
            return invalid("tiers.thin_sound_kbps", "must be 16 to 64");
        }
        if ![20, 40, 60].contains(&self.tiers.thin_sound_ms) {
            return invalid("tiers.thin_sound_ms", "must be 20, 40 or 60: durations of Opus packets");
        }
        if let Err(error) = self.ladder().validate() {
            return invalid("tiers", error.to_string());
        }
        self.check_numbers()
    }

    /// Refuses limits of zero, which would mean "none allowed" and not "unlimited".
    fn check_numbers(&self) -> Result<(), Invalid> {
        let (rooms, limits) = (&self.rooms, &self.limits);
        let least: [(&'static str, usize, usize); 18] = [
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
        ];
        match least.into_iter().find(|(_, value, least)| value < least) {
            Some((key, value, least)) => invalid(key, format!("{value} is too small: at least {least}")),
            None => Ok(()),
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
            assert_eq!(config.check().is_ok(), good, "{server}");
        }
        config.media.stun_server = Some("stun.example.org:3478".to_owned());
        config.media.public_ips = vec![Ipv4Addr::LOCALHOST.into()];
        assert!(config.check().is_err_and(|invalid| invalid.key == "media.stun_server"));
    }
}
