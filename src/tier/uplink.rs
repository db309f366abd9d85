//! What senders are asked to send: as much as their tiles show, and no more.
//!
//! Owns: [`deserved`], what a picture is worth; [`UplinkLimit`], what one sender is asked at the moment. Does not know: how it is
//! asked. Less is asked at once; more only when it has been wanted for a while, so that those who come and go, and tiers that are
//! tried, do not make everyone's encoder jump.

use std::time::Duration;

use crate::media::Size;
use crate::time::Timestamp;

/// Bits per second of sound that come on top of pictures.
pub const SOUND: u64 = 64_000;
/// Bits per second for pictures that nobody sees: enough to go on with a keyframe at once when somebody does.
const LEAST: u64 = 60_000;
/// Bits per second of a picture of 1280x720 at 30 frames a second.
const WHOLE: f64 = 1_500_000.0;
/// A picture of twice the pixels does not need twice the bits.
const POWER: f64 = 0.8;
/// How long more must be wanted before it is asked.
const HOLD: Duration = Duration::from_secs(2);
/// Smaller changes than this part are none.
const STEP: f64 = 0.15;

/// Bits per second that a picture deserves which is shown at this size, so often a second.
pub fn deserved(size: Size, fps: u32) -> u64 {
    let rate = f64::from(size.width) * f64::from(size.height) * f64::from(fps);
    ((WHOLE * (rate / (1280.0 * 720.0 * 30.0)).powf(POWER)) as u64).max(LEAST)
}

/// What one sender is asked.
#[derive(Debug, Clone, Default)]
pub struct UplinkLimit {
    /// Bits per second; None as long as it was not asked anything.
    asked: Option<u64>,
    /// Since when more has been wanted.
    rising: Option<Timestamp>,
}

impl UplinkLimit {
    /// Takes in what all that it sends deserves now, pictures and sound; gives what to ask, if that is new.
    pub fn update(&mut self, now: Timestamp, wanted: u64) -> Option<u64> {
        let change = self.asked.map_or(-1.0, |asked| wanted as f64 / asked as f64 - 1.0);
        if change <= STEP {
            self.rising = None;
        } else if now.since(*self.rising.get_or_insert(now)) >= HOLD {
            self.rising = None;
            self.asked = Some(wanted);
            return self.asked;
        }
        if change < -STEP {
            self.asked = Some(wanted);
            return self.asked;
        }
        None
    }

    /// When to update it although nothing has changed.
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
    fn a_picture_is_worth_its_pixels() {
        let worth = |width, height| deserved(Size::new(width, height), 30) / 1_000;
        assert_eq!([worth(1280, 720), worth(640, 360), worth(427, 240), worth(320, 180)], [1_500, 494, 258, 163]);
        assert_eq!(worth(0, 0), 60);
        assert_eq!(deserved(Size::new(640, 360), 1), LEAST);
    }

    #[test]
    fn less_is_asked_at_once_and_more_only_when_it_lasts() {
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

        /// Whatever is wanted when: nobody sends far more than that, and who waits long enough is asked for it.
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
