//! The quality ladder: which sizes, rates and bitrates there are. Pure data.
//!
//! Owns: [`Ladder`] and what makes one valid. Does not know: who gets which tier.

use serde::{Deserialize, Serialize};

use crate::media::{Size, Tier};

/// What one tier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSpec {
    /// Pixels; the stream has the canvas' shape and fits within.
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
    /// Target bitrate in kbit/s.
    pub bitrate_kbps: u32,
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
        Self { high: rung(1280, 720, 30, 1_500), medium: rung(640, 360, 30, 500), low: rung(320, 180, 15, 150) }
    }
}

impl Ladder {
    /// What a tier is; `audio` has no picture, and is answered like `low`.
    pub const fn spec(&self, tier: Tier) -> TierSpec {
        match tier {
            Tier::High => self.high,
            Tier::Medium => self.medium,
            Tier::Low | Tier::Audio => self.low,
        }
    }

    /// Checks that each rung is no better than the one above it.
    ///
    /// # Errors
    /// Names the two rungs and what is wrong between them.
    pub fn validate(&self) -> Result<(), LadderError> {
        for (upper, above, lower, below) in
            [("high", self.high, "medium", self.medium), ("medium", self.medium, "low", self.low)]
        {
            let pixels = |spec: TierSpec| u64::from(spec.size.width) * u64::from(spec.size.height);
            let measures = [
                ("pixels", pixels(above), pixels(below)),
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
