//! Bitrate limits of senders, derived from the size of their tiles.
//!
//! Owns: [`deserved`], the bitrate for a picture of some size; [`UplinkLimit`], the limit of one sender. Does not know:
//! how a limit is signalled (REMB). A lower limit takes effect at once, a higher one only after it has been needed for
//! a while, so that joins, leaves and tries of tiers do not make every sender's encoder jump.

use std::time::Duration;

use crate::media::Size;
use crate::time::Timestamp;

/// Bits per second of audio, added to those of video: Opus as browsers send it, with its headers.
pub const SOUND: u64 = 40_000;
/// Bits per second for video that is not shown: enough for a keyframe at once when it is shown again.
const LEAST: u64 = 60_000;
/// Bits per second of a picture of 1280x720 at 30 frames a second.
const WHOLE: f64 = 1_500_000.0;
/// Exponent of the bitrate by pixel rate: twice the pixels need less than twice the bits.
const POWER: f64 = 0.8;
/// Pixels of 320x180. Smaller pictures, as in rooms of more than sixteen, have the exponent [`SMALL_POWER`]: a face of
/// 250x140 pixels needs few bits.
const SMALL: f64 = 320.0 * 180.0;
/// See [`SMALL`].
const SMALL_POWER: f64 = 1.5;
/// How long a higher limit must be needed before it takes effect.
const HOLD: Duration = Duration::from_secs(2);
/// Relative changes smaller than this are ignored.
const STEP: f64 = 0.15;

/// Bits per second for a picture that is shown at this size and frame rate.
pub fn deserved(size: Size, fps: u32) -> u64 {
    let pixels = f64::from(size.width) * f64::from(size.height);
    let rate = pixels.max(SMALL) * f64::from(fps);
    let bits = WHOLE * (rate / (1280.0 * 720.0 * 30.0)).powf(POWER) * (pixels / SMALL).min(1.0).powf(SMALL_POWER);
    (bits as u64).max(LEAST)
}

/// The bitrate limit of one sender.
#[derive(Debug, Clone, Default)]
pub struct UplinkLimit {
    /// Bits per second; None before the first limit.
    limit: Option<u64>,
    /// Since when a higher limit has been needed.
    rising: Option<Timestamp>,
}

impl UplinkLimit {
    /// Takes in the bits per second that all its sources need now; returns the limit if it changes.
    pub fn update(&mut self, now: Timestamp, wanted: u64) -> Option<u64> {
        let change = self.limit.map_or(-1.0, |limit| wanted as f64 / limit as f64 - 1.0);
        if change <= STEP {
            self.rising = None;
        } else if now.since(*self.rising.get_or_insert(now)) >= HOLD {
            self.rising = None;
            self.limit = Some(wanted);
            return self.limit;
        }
        if change < -STEP {
            self.limit = Some(wanted);
            return self.limit;
        }
        None
    }

    /// When to update it although nothing else has changed.
    pub fn due(&self) -> Option<Timestamp> {
        self.rising.map(|since| since + HOLD)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_000 * millis)
    }

    #[test]
    fn the_bitrate_follows_the_pixel_rate() {
        let worth = |width, height| deserved(Size::new(width, height), 30) / 1_000;
        assert_eq!([worth(1280, 720), worth(640, 360), worth(427, 240), worth(320, 180)], [1_500, 494, 258, 163]);
        // A tile of a room of 25, with audio less than 120 kbit/s.
        assert_eq!([worth(250, 140), worth(240, 135), worth(0, 0)], [77, 68, 60]);
        assert!(deserved(Size::new(250, 140), 30) + SOUND < 120_000);
        assert_eq!(deserved(Size::new(640, 360), 1), LEAST);
    }

    #[test]
    fn a_lower_limit_takes_effect_at_once_and_a_higher_one_only_if_it_lasts() {
        let mut ask = UplinkLimit::default();
        assert_eq!(ask.update(at(0), 500_000), Some(500_000));
        assert_eq!(ask.update(at(10), 560_000), None, "much the same");
        assert_eq!(ask.due(), None);
        assert_eq!(ask.update(at(20), 300_000), Some(300_000));
        assert_eq!(ask.update(at(30), 500_000), None);
        assert_eq!(ask.update(at(1_000), 300_000), None, "it did not last");
        assert_eq!(ask.update(at(1_100), 500_000), None);
        assert_eq!(ask.due(), Some(at(3_100)));
        assert_eq!(ask.update(at(3_000), 900_000), None);
        assert_eq!(ask.update(at(3_100), 900_000), Some(900_000));
        assert_eq!((ask.due(), ask.update(at(3_200), 900_000)), (None, None));
    }

    proptest! {
        #[test]
        fn more_pixels_never_deserve_less(width in 0..4_000_u32, height in 0..4_000_u32, fps in 0..60_u32) {
            let worth = deserved(Size::new(width, height), fps);
            prop_assert!(worth >= LEAST);
            prop_assert!(worth <= deserved(Size::new(width + 1, height), fps));
            prop_assert!(worth <= deserved(Size::new(width, height), fps + 1));
        }

        /// The limit never exceeds the need by much, and reaches a higher need in time.
        #[test]
        fn what_is_asked_follows(steps in prop::collection::vec((60_000..2_000_000_u64, 0..3_000_u64), 1..50)) {
            let (mut ask, mut now, mut asked) = (UplinkLimit::default(), 0, 0);
            for (wanted, wait) in steps {
                now += wait;
                asked = ask.update(at(now), wanted).unwrap_or(asked);
                prop_assert!(asked as f64 * (1.0 - STEP) <= wanted as f64 + 1.0, "{} for {}", asked, wanted);
                if let Some(due) = ask.due() {
                    asked = ask.clone().update(due, wanted).unwrap_or(asked);
                    prop_assert!(due <= at(now) + HOLD);
                    now = due.as_micros() / 1_000;
                    prop_assert_eq!(ask.update(due, wanted), Some(wanted));
                }
                prop_assert!((asked as f64 / wanted as f64 - 1.0).abs() < 0.2, "{} for {}", asked, wanted);
            }
        }
    }
}
