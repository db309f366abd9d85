//! Tiers: sizes, frame rates and bitrates, and which tier the network path to a receiver can carry.
//!
//! Owns: [`Ladder`] and its validation; [`Downlink`], which estimates the state of this path from the arrival times of
//! packets; [`Pacer`], which delays video that would delay audio; [`Chooser`], which selects a tier; [`uplink`], the
//! bitrate limits of senders; [`Protection`], which decides on FlexFEC. Does not know: connections, streams,
//! participants. Time is an argument.

mod chooser;
mod downlink;
mod pacer;
mod protection;
#[cfg(test)]
mod simulation;
pub mod uplink;

use serde::{Deserialize, Serialize};

pub use self::chooser::{Choice, Chooser, Costs, Limit, Reception};
pub use self::downlink::{Arrival, Downlink};
pub use self::pacer::Pacer;
pub use self::protection::Protection;

use crate::media::{Size, SoundTaken, Sounds, Tier};

/// Bytes added to a packet's payload: IPv4 and UDP, the RTP header, its extensions, the SRTP authentication tag.
const OVERHEAD: u64 = 28 + 12 + 8 + 16;

/// The largest video payload of a packet in bytes, in a stream of this many kbit/s: a tenth of a second of the stream.
/// At least 480 bytes, below which headers cost too much; at most 1,200 bytes, so that packets are not fragmented.
pub fn packet_bytes(kbps: u32) -> usize {
    (kbps as usize * 1_000 / 8 / 10).clamp(480, 1_200)
}

/// Fewest frames per second of a shared screen for which the size of its tier grows.
const SCREEN_FPS: u32 = 2;
/// A shared screen has at most this many times the pixels per second of its tier.
const SCREEN_PIXELS: u64 = 4;

/// The properties of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSpec {
    /// Size in pixels; the stream has the aspect ratio of the canvas and fits within.
    pub size: Size,
    /// Frames per second.
    pub fps: u32,
    /// Bitrate on the wire in kbit/s, headers included.
    pub bitrate_kbps: u32,
}

impl TierSpec {
    /// The payload's part of [`bitrate_kbps`](Self::bitrate_kbps) at this many frames per second, in kbit/s. At least
    /// half, also where many small frames have more headers: the encoder needs some bitrate.
    pub fn payload_kbps(&self, fps: u32) -> u32 {
        let wire = u64::from(self.bitrate_kbps) * 1_000;
        // Each frame needs at least one packet, and its last packet is partly filled.
        let payload = packet_bytes(self.bitrate_kbps) as u64 * 9 / 10;
        let packets = (wire / 8 / (payload + OVERHEAD)).max(fps.into()) + 1;
        (wire.saturating_sub(packets * OVERHEAD * 8).max(wire / 2) / 1_000) as u32
    }

    /// The properties while the picture is mainly a shared screen: the size of the canvas, or half of it, and so much
    /// fewer frames per second, because text is unreadable in a small picture and seldom moves. Unchanged for a tier
    /// with few frames per second, and if half of the canvas has too many pixels for it.
    #[must_use]
    pub fn for_screen(self, canvas: Size) -> Self {
        let pixels = |size: Size| u64::from(size.width) * u64::from(size.height);
        let per_second = pixels(self.size) * u64::from(self.fps);
        let half = Size::new(canvas.width / 4 * 2, canvas.height / 4 * 2);
        let fits = |size: &Size| pixels(*size) * u64::from(SCREEN_FPS) <= SCREEN_PIXELS * per_second;
        let larger = [canvas, half].into_iter().find(fits).filter(|size| pixels(*size) > pixels(self.size));
        let Some(size) = larger.filter(|_| self.fps > SCREEN_FPS) else { return self };
        let fps = (per_second / pixels(size)).clamp(SCREEN_FPS.into(), self.fps.into()) as u32;
        Self { size, fps, ..self }
    }
}

/// The tiers with video, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ladder {
    /// Its size and frame rate are those of the canvas.
    pub high: TierSpec,
    /// The tier `medium`, by default 640x360.
    pub medium: TierSpec,
    /// The tier `low`, by default 320x180.
    pub low: TierSpec,
    /// About one sharp picture per second, for links that do not carry [`low`](Self::low).
    pub slides: TierSpec,
    /// The full and the thin audio; each tier has one of them.
    pub sounds: Sounds,
}

/// A ladder is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tier `{lower}` must not have more {what} than tier `{upper}`, and both must have some")]
pub struct LadderError {
    upper: &'static str,
    lower: &'static str,
    what: &'static str,
}

impl Default for Ladder {
    fn default() -> Self {
        let rung = |width, height, fps, bitrate_kbps| TierSpec { size: Size::new(width, height), fps, bitrate_kbps };
        Self {
            high: rung(1280, 720, 30, 1_500),
            medium: rung(640, 360, 30, 500),
            low: rung(320, 180, 15, 150),
            slides: rung(640, 360, 1, 32),
            sounds: Sounds::default(),
        }
    }
}

impl Ladder {
    /// The properties of a tier; None for `audio`, which has no video.
    pub const fn spec(&self, tier: Tier) -> Option<TierSpec> {
        match tier {
            Tier::High => Some(self.high),
            Tier::Medium => Some(self.medium),
            Tier::Low => Some(self.low),
            Tier::Slides => Some(self.slides),
            Tier::Audio => None,
        }
    }

    /// The bitrate of each tier on the wire, audio included.
    pub fn costs(&self) -> Costs {
        let cost = |tier: Tier| {
            let sound = self.sounds.spec(SoundTaken::Any.with(tier));
            let video = self.spec(tier).map_or(0, |spec| u64::from(spec.bitrate_kbps) * 1_000);
            u64::from(sound.bitrate_kbps) * 1_000 + OVERHEAD * 8 * 1_000 / u64::from(sound.packet_ms) + video
        };
        Costs {
            audio: cost(Tier::Audio),
            slides: cost(Tier::Slides),
            low: cost(Tier::Low),
            medium: cost(Tier::Medium),
            high: cost(Tier::High),
        }
    }

    /// Checks that no tier exceeds the next better one, and that thin audio does not exceed full audio.
    ///
    /// # Errors
    /// The two tiers, and the property in which the lower one exceeds the upper one.
    pub fn validate(&self) -> Result<(), LadderError> {
        for (upper, above, lower, below) in [
            ("high", self.high, "medium", self.medium),
            ("medium", self.medium, "low", self.low),
            ("low", self.low, "slides", self.slides),
        ] {
            let pixels = |spec: TierSpec| u64::from(spec.size.width) * u64::from(spec.size.height);
            // Slides may have more pixels than `low`, but not more than the canvas.
            let sharpest = if lower == "slides" { self.high } else { above };
            let measures = [
                ("pixels", pixels(sharpest), pixels(below)),
                ("frames a second", above.fps.into(), below.fps.into()),
                ("bitrate", above.bitrate_kbps.into(), below.bitrate_kbps.into()),
            ];
            for (what, above, below) in measures {
                if below == 0 || above < below {
                    return Err(LadderError { upper, lower, what });
                }
            }
        }
        if self.sounds.thin.bitrate_kbps > self.sounds.full.bitrate_kbps {
            return Err(LadderError { upper: "medium", lower: "low", what: "audio bitrate" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tier_with_its_audio_fits_a_link_of_its_nominal_rate() {
        let costs = Ladder::default().costs();
        for (tier, kbps) in [(Tier::High, 2_000), (Tier::Medium, 600), (Tier::Low, 200), (Tier::Slides, 80)] {
            assert!(costs.of(tier) < kbps * 1_000 * 24 / 25, "{tier:?} costs {}", costs.of(tier));
        }
    }

    #[test]
    fn for_a_screen_lower_tiers_reduce_the_frame_rate_before_the_resolution() {
        let Ladder { high, medium, low, slides, .. } = Ladder::default();
        let screen = |tier: TierSpec, canvas: Size| {
            let TierSpec { size, fps, bitrate_kbps } = tier.for_screen(canvas);
            assert_eq!(bitrate_kbps, tier.bitrate_kbps);
            (size, fps)
        };
        let canvas = Size::new(1280, 720);
        assert_eq!(screen(high, canvas), (canvas, 30));
        assert_eq!(screen(medium, canvas), (canvas, 7));
        assert_eq!(screen(low, canvas), (canvas, 2));
        assert_eq!(screen(slides, canvas), (slides.size, 1), "a larger picture takes too long at 32 kbit/s");
        let full_hd = Size::new(1920, 1080);
        assert_eq!(screen(medium, full_hd), (full_hd, 3));
        assert_eq!(screen(low, full_hd), (Size::new(960, 540), 2), "half of the canvas");
        let portrait = Size::new(720, 1280);
        assert_eq!(screen(medium, portrait), (portrait, 7));
        assert_eq!(screen(medium, Size::new(320, 180)), (medium.size, 30), "the canvas is smaller than the tier");
    }

    #[test]
    fn the_bitrate_of_a_tier_includes_headers() {
        for (bitrate_kbps, fps) in [(1_500, 30), (500, 30), (150, 15), (32, 1), (30, 30)] {
            let spec = TierSpec { size: Size::new(320, 180), fps, bitrate_kbps };
            let payload = u64::from(spec.payload_kbps(fps));
            assert!(payload >= u64::from(bitrate_kbps) / 2);
            // At worst one partly filled packet for each frame, where frames have several packets.
            let packets = (payload * 1_000 / 8 / packet_bytes(bitrate_kbps) as u64).max(fps.into());
            assert!(bitrate_kbps == 30 || payload * 1_000 + packets * OVERHEAD * 8 <= u64::from(bitrate_kbps) * 1_000);
        }
    }

    #[test]
    fn the_default_ladder_is_valid_and_a_reversed_one_is_not() {
        let ladder = Ladder::default();
        assert_eq!(ladder.validate(), Ok(()));
        let reversed = Ladder { medium: ladder.low, low: ladder.medium, ..ladder };
        let error = reversed.validate().expect_err("reversed");
        assert_eq!(
            error.to_string(),
            "tier `low` must not have more pixels than tier `medium`, and both must have some"
        );
        let empty = Ladder { low: TierSpec { fps: 0, ..ladder.low }, ..ladder };
        assert!(empty.validate().is_err());
        assert!(Ladder { sounds: Sounds::new(16, 20, 60), ..ladder }.validate().is_err());
    }

    #[test]
    fn the_tiers_audio_and_slides_include_thin_audio_with_its_headers() {
        let costs = Ladder::default().costs();
        assert!((25_000..30_000).contains(&costs.audio), "{costs:?}");
        assert!(costs.slides < 80_000, "sound and slides on 80 kbit/s: {costs:?}");
    }
}
