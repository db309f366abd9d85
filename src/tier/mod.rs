//! The quality ladder: which sizes, rates and bitrates there are, and which rung a link carries.
//!
//! Owns: [`Ladder`] and what makes one valid; [`Downlink`], which reads a link's state from the arrivals of packets;
//! [`Pacer`], which holds video back where it would delay the voice; [`Chooser`], which picks a tier. Does not know: connections, streams, who is at the other end. Time is an argument.

mod chooser;
mod downlink;
mod pacer;
#[cfg(test)]
mod simulation;

use serde::{Deserialize, Serialize};

pub use self::chooser::{Choice, Chooser, Costs, Limit, Reception};
pub use self::downlink::{Arrival, Downlink};
pub use self::pacer::Pacer;

use crate::media::{Size, Tier};

/// Bytes around a packet's payload: IP, UDP, RTP with its extensions, SRTP.
const OVERHEAD: u64 = 28 + 12 + 8 + 16;
/// Bytes of video in a packet, about.
const PAYLOAD: u64 = 1_100;
/// Sound in kbit/s, and its packets a second.
const SOUND: (u64, u64) = (48, 50);

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
        let packets = (wire / 8 / (PAYLOAD + OVERHEAD)).max(fps.into()) + 1;
        (wire.saturating_sub(packets * OVERHEAD * 8).max(wire / 2) / 1_000) as u32
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
            let (kbps, packets) = SOUND;
            let video = self.spec(tier).map_or(0, |spec| u64::from(spec.bitrate_kbps) * 1_000);
            kbps * 1_000 + packets * OVERHEAD * 8 + video
        };
        Costs {
            audio: cost(Tier::Audio),
            slides: cost(Tier::Slides),
            low: cost(Tier::Low),
            medium: cost(Tier::Medium),
            high: cost(Tier::High),
        }
    }

    /// Checks that each rung is no better than the one above it.
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
    }
}
