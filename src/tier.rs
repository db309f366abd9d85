//! The quality ladder as data: how large, how often and at what bitrate each tier is encoded. Pure.
//!
//! Owns: [`Ladder`], its defaults and what makes one valid. Does not know: who gets which tier, encoders, bandwidth.
//! It comes in with the configuration and is asked for a [`TierSpec`].

use serde::{Deserialize, Serialize};

use crate::media::{Size, Tier};

/// Why a ladder is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// A video tier without pixels, frames or bits.
    #[error("tier `{0}`: {1} is 0; give a positive number")]
    Zero(&'static str, &'static str),
    /// Odd sizes cannot be encoded in I420.
    #[error("tier `{0}`: size {1} is odd; width and height must be even")]
    Odd(&'static str, Size),
    /// More than one encoder can do.
    #[error("tier `{0}`: {1} is too much; at most 3840x2160, 60 fps and 20000 kbit/s")]
    TooMuch(&'static str, String),
    /// A tier that is better than the one above it.
    #[error("tier `{0}` has more {2} than `{1}`; a higher tier must not be worse than a lower one")]
    NotMonotone(&'static str, &'static str, &'static str),
}

/// How one video tier is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Picture size in pixels, even.
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
    /// Target bitrate in kbit/s.
    pub bitrate_kbps: u32,
}

/// One tier, with what it is encoded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierSpec {
    /// Which tier.
    pub tier: Tier,
    /// Picture size in pixels; 0x0 for [`Tier::Audio`].
    pub size: Size,
    /// Frames a second; 0 for [`Tier::Audio`].
    pub fps: u32,
    /// Video bitrate in kbit/s; 0 for [`Tier::Audio`].
    pub bitrate_kbps: u32,
}

/// All tiers. What is not given has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ladder {
    /// The whole canvas: 1280x720 at 30 fps and 1500 kbit/s by default.
    pub high: Rung,
    /// 640x360 at 30 fps and 500 kbit/s by default.
    pub medium: Rung,
    /// 320x180 at 15 fps and 150 kbit/s by default.
    pub low: Rung,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            high: Rung { size: Size::new(1280, 720), fps: 30, bitrate_kbps: 1500 },
            medium: Rung { size: Size::new(640, 360), fps: 30, bitrate_kbps: 500 },
            low: Rung { size: Size::new(320, 180), fps: 15, bitrate_kbps: 150 },
        }
    }
}

impl Ladder {
    /// What a tier is encoded with.
    pub const fn spec(&self, tier: Tier) -> TierSpec {
        let rung = match tier {
            Tier::High => self.high,
            Tier::Medium => self.medium,
            Tier::Low => self.low,
            Tier::Audio => Rung { size: Size::new(0, 0), fps: 0, bitrate_kbps: 0 },
        };
        TierSpec { tier, size: rung.size, fps: rung.fps, bitrate_kbps: rung.bitrate_kbps }
    }

    /// Checks each tier and that none is better than the one above it.
    pub fn validate(&self) -> Result<(), LadderError> {
        let rungs = [("low", self.low), ("medium", self.medium), ("high", self.high)];
        for (name, rung) in rungs {
            let Size { width, height } = rung.size;
            let numbers =
                [("width", width), ("height", height), ("fps", rung.fps), ("bitrate_kbps", rung.bitrate_kbps)];
            if let Some((what, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
                return Err(LadderError::Zero(name, what));
            }
            if width % 2 != 0 || height % 2 != 0 {
                return Err(LadderError::Odd(name, rung.size));
            }
            if width > 3_840 || height > 2_160 || rung.fps > 60 || rung.bitrate_kbps > 20_000 {
                let what = format!("{} at {} fps and {} kbit/s", rung.size, rung.fps, rung.bitrate_kbps);
                return Err(LadderError::TooMuch(name, what));
            }
        }
        for [(lower, a), (higher, b)] in [[rungs[0], rungs[1]], [rungs[1], rungs[2]]] {
            let compared = [
                ("width", a.size.width, b.size.width),
                ("height", a.size.height, b.size.height),
                ("fps", a.fps, b.fps),
                ("bitrate_kbps", a.bitrate_kbps, b.bitrate_kbps),
            ];
            if let Some((what, ..)) = compared.into_iter().find(|(_, a, b)| a > b) {
                return Err(LadderError::NotMonotone(lower, higher, what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_documented_ladder() {
        let ladder = Ladder::default();
        assert_eq!(ladder.validate(), Ok(()));
        let numbers = |tier| {
            let spec = ladder.spec(tier);
            (spec.size.to_string(), spec.fps, spec.bitrate_kbps)
        };
        assert_eq!(numbers(Tier::High), ("1280x720".into(), 30, 1500));
        assert_eq!(numbers(Tier::Medium), ("640x360".into(), 30, 500));
        assert_eq!(numbers(Tier::Low), ("320x180".into(), 15, 150));
        assert_eq!(numbers(Tier::Audio), ("0x0".into(), 0, 0));
    }

    #[test]
    fn a_part_can_be_given_and_a_wrong_key_is_named() {
        let ladder: Ladder =
            toml::from_str("[low]\nsize = { width = 160, height = 90 }\nfps = 10\nbitrate_kbps = 60").expect("valid");
        assert_eq!(ladder.spec(Tier::Low).bitrate_kbps, 60);
        assert_eq!(ladder.high, Ladder::default().high);
        let error = toml::from_str::<Ladder>("[lowest]\nfps = 1").expect_err("no such tier").to_string();
        assert!(error.contains("lowest") && error.contains("medium"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut ladder = Ladder::default();
        ladder.medium.bitrate_kbps = 2_000;
        let error = ladder.validate().expect_err("more than high").to_string();
        assert_eq!(
            error,
            "tier `medium` has more bitrate_kbps than `high`; a higher tier must not be worse than a lower one"
        );
        let mut ladder = Ladder::default();
        ladder.low.size.height = 181;
        assert_eq!(ladder.validate(), Err(LadderError::Odd("low", Size::new(320, 181))));
        let mut ladder = Ladder::default();
        ladder.high.fps = 0;
        assert_eq!(ladder.validate(), Err(LadderError::Zero("high", "fps")));
        let mut ladder = Ladder::default();
        ladder.high.size.width = 8_000;
        assert!(matches!(ladder.validate(), Err(LadderError::TooMuch("high", _))));
    }
}
