//! The quality ladder: which sizes, rates and bitrates there are, and which rung a link carries.
//!
//! Owns: [`Ladder`] and what makes one valid; [`Downlink`], which reads a link's state from the arrivals of packets;
//! [`Pacer`], which holds video back where it would delay the voice; [`Chooser`], which picks a tier. Does not know: connections, streams, who is at the other end. Time is an argument.

mod chooser;
mod downlink;
mod pacer;
#[cfg(test)]
mod simulation;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::chooser::{Choice, Chooser, Costs, Limit, Reception};
pub use self::downlink::{Arrival, Downlink};
pub use self::pacer::Pacer;

use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Size, SoundQuality, Tier};

/// Bytes around a packet's payload: IP, UDP, RTP with its extensions, SRTP.
const OVERHEAD: u64 = 28 + 12 + 8 + 16;
/// Milliseconds of one audio tick.
const TICK_MS: u32 = AUDIO_TICK_SAMPLES as u32 * 1_000 / AUDIO_RATE;

/// The largest payload of video in a stream of so many kbit/s, in bytes: what it takes a tenth of a second to send, on a link
/// that carries little more. Below 480 bytes headers cost too much.
pub fn packet_bytes(kbps: u32) -> usize {
    (kbps as usize * 1_000 / 8 / 10).clamp(480, 1_200)
}

/// What one tier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSpec {
    /// Pixels; the stream has the canvas' shape and fits within.
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
    /// What it takes on the wire in kbit/s, the packets' headers included.
    pub bitrate_kbps: u32,
}

impl TierSpec {
    /// What is left for the pictures of [`bitrate_kbps`](Self::bitrate_kbps) at so many frames a second, in kbit/s.
    pub fn payload_kbps(&self, fps: u32) -> u32 {
        let wire = u64::from(self.bitrate_kbps) * 1_000;
        // A frame is a packet at least, and few end where a packet does.
        let payload = packet_bytes(self.bitrate_kbps) as u64 * 9 / 10;
        let packets = (wire / 8 / (payload + OVERHEAD)).max(fps.into()) + 1;
        (wire.saturating_sub(packets * OVERHEAD * 8).max(wire / 2) / 1_000) as u32
    }
}

/// How sound is sent in one quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoundSpec {
    /// Target in kbit/s, without headers.
    pub bitrate_kbps: u32,
    /// Sound in one packet, in milliseconds.
    pub packet_ms: u32,
}

impl SoundSpec {
    /// Audio ticks in one packet.
    pub const fn ticks(&self) -> u32 {
        self.packet_ms / TICK_MS
    }

    /// Bits per second on the wire.
    fn cost(&self) -> u64 {
        u64::from(self.bitrate_kbps) * 1_000 + OVERHEAD * 8 * 1_000 / u64::from(self.packet_ms)
    }

    fn is_within(&self, limits: &SoundLimits) -> bool {
        self.packet_ms <= limits.packet_ms && self.bitrate_kbps * 1_000 <= limits.bits_per_second
    }
}

impl fmt::Display for SoundSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s in packets of {} ms", self.bitrate_kbps, self.packet_ms)
    }
}

/// Both qualities of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sounds {
    /// One packet a tick.
    pub full: SoundSpec,
    /// For thin links: on these the headers of a packet cost as much as what is in it.
    pub thin: SoundSpec,
}

impl Default for Sounds {
    fn default() -> Self {
        Self::new(48, 20, 60)
    }
}

impl Sounds {
    /// Bitrates of both qualities in kbit/s, and how much sound is in a packet of the thin one, in milliseconds.
    pub const fn new(full_kbps: u32, thin_kbps: u32, thin_ms: u32) -> Self {
        Self {
            full: SoundSpec { bitrate_kbps: full_kbps, packet_ms: TICK_MS },
            thin: SoundSpec { bitrate_kbps: thin_kbps, packet_ms: thin_ms },
        }
    }

    /// What a quality is.
    pub const fn spec(&self, quality: SoundQuality) -> SoundSpec {
        match quality {
            SoundQuality::Full => self.full,
            SoundQuality::Thin => self.thin,
        }
    }

    /// Which qualities may be sent to somebody with these limits; None where neither.
    pub fn within(&self, limits: &SoundLimits) -> Option<SoundTaken> {
        match (self.full.is_within(limits), self.thin.is_within(limits)) {
            (true, true) => Some(SoundTaken::Any),
            (true, false) => Some(SoundTaken::Only(SoundQuality::Full)),
            (false, true) => Some(SoundTaken::Only(SoundQuality::Thin)),
            (false, false) => None,
        }
    }
}

/// What somebody says of the sound that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundLimits {
    /// Most sound in one packet, in milliseconds (`a=maxptime`, RFC 8866 section 6.4).
    pub packet_ms: u32,
    /// Most bits per second, without headers (`maxaveragebitrate`, RFC 7587 section 6.1).
    pub bits_per_second: u32,
}

impl Default for SoundLimits {
    fn default() -> Self {
        Self { packet_ms: 120, bits_per_second: 510_000 }
    }
}

/// Which qualities of sound somebody takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundTaken {
    /// Both: the tier decides.
    Any,
    /// One, whatever the tier.
    Only(SoundQuality),
}

impl SoundTaken {
    /// The sound that goes with a tier: whoever gets less than `medium` has a link on which every bit counts.
    pub fn with(self, tier: Tier) -> SoundQuality {
        match self {
            Self::Only(quality) => quality,
            Self::Any if tier < Tier::Medium => SoundQuality::Thin,
            Self::Any => SoundQuality::Full,
        }
    }
}

/// Every tier with a picture, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ladder {
    /// The canvas itself: of this tier only the bitrate counts.
    pub high: TierSpec,
    /// For a middling link.
    pub medium: TierSpec,
    /// For a thin link.
    pub low: TierSpec,
    /// For a link too thin for moving pictures: seldom ones, as sharp as bits allow.
    pub slides: TierSpec,
    /// The sound that goes with them.
    pub sounds: Sounds,
}

/// Why a ladder is not one.
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
            slides: rung(640, 360, 1, 40),
            sounds: Sounds::default(),
        }
    }
}

impl Ladder {
    /// What a tier is; None for `audio`, which has no picture.
    pub const fn spec(&self, tier: Tier) -> Option<TierSpec> {
        match tier {
            Tier::High => Some(self.high),
            Tier::Medium => Some(self.medium),
            Tier::Low => Some(self.low),
            Tier::Slides => Some(self.slides),
            Tier::Audio => None,
        }
    }

    /// What each tier costs on the wire, with its sound.
    pub fn costs(&self) -> Costs {
        let cost = |tier: Tier| {
            let sound = self.sounds.spec(SoundTaken::Any.with(tier));
            let video = self.spec(tier).map_or(0, |spec| u64::from(spec.bitrate_kbps) * 1_000);
            sound.cost() + video
        };
        Costs {
            audio: cost(Tier::Audio),
            slides: cost(Tier::Slides),
            low: cost(Tier::Low),
            medium: cost(Tier::Medium),
            high: cost(Tier::High),
        }
    }

    /// Checks that each rung is no better than the one above it, the sound of the thinner ones included.
    ///
    /// # Errors
    /// Names the two rungs and what is wrong between them.
    pub fn validate(&self) -> Result<(), LadderError> {
        for (upper, above, lower, below) in [
            ("high", self.high, "medium", self.medium),
            ("medium", self.medium, "low", self.low),
            ("low", self.low, "slides", self.slides),
        ] {
            let pixels = |spec: TierSpec| u64::from(spec.size.width) * u64::from(spec.size.height);
            // A slide is sharper than what moves: it may have more pixels, though no more than the canvas.
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
            return Err(LadderError { upper: "medium", lower: "low", what: "bits of sound" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_a_reversed_one_is_not() {
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
    fn sound_is_thin_below_medium_unless_the_receiver_takes_no_such() {
        let sounds = Sounds::default();
        let taken = |packet_ms, bits_per_second| sounds.within(&SoundLimits { packet_ms, bits_per_second });
        let any = sounds.within(&SoundLimits::default()).expect("both");
        let thin = Tier::ALL.map(|tier| any.with(tier) == SoundQuality::Thin);
        assert_eq!(thin, [true, true, true, false, false]);
        assert_eq!(taken(40, 64_000), Some(SoundTaken::Only(SoundQuality::Full)));
        assert_eq!(taken(60, 20_000), Some(SoundTaken::Only(SoundQuality::Thin)));
        assert_eq!(taken(40, 20_000), None);
        assert_eq!(taken(10, 64_000), None);
        assert_eq!(SoundTaken::Only(SoundQuality::Full).with(Tier::Audio), SoundQuality::Full);
    }

    #[test]
    fn a_thin_link_carries_thin_sound_and_its_headers() {
        let costs = Ladder::default().costs();
        assert!((25_000..30_000).contains(&costs.audio), "{costs:?}");
        assert!(costs.slides < 80_000, "sound and slides on 80 kbit/s: {costs:?}");
    }
}
