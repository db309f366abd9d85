//! Whether repair packets that nobody has asked for pay: what is lost and how long the way is in, how many out.
//!
//! Owns: [`Protection`], one per receiver that can use them (FlexFEC). Does not know: packets, streams. Asking again for
//! what was lost costs least and repairs most, but takes a round trip and a half; where that is longer than a picture may
//! be late, one repair packet for a group of others mends a single loss among them at once. Where packets are lost because
//! there are too many of them, more of them help nobody.

use std::time::Duration;

use super::Reception;

/// Loss from which on it pays, and below which it ends.
const LOSS_BEGIN: f32 = 0.02;
/// See [`LOSS_BEGIN`].
const LOSS_END: f32 = 0.01;
/// Round trip from which on asking again is too slow, and below which it is fast enough.
const SLOW: Duration = Duration::from_millis(100);
/// See [`SLOW`].
const FAST: Duration = Duration::from_millis(80);
/// A queue on the way that means that there are too many packets.
const CONGESTED: Duration = Duration::from_millis(80);
/// Part that a new report has in the loss that counts: reports of few packets say little.
const NEW: f32 = 0.3;
/// Losses in a group, on average: two in one are more than a repair packet mends.
const LOSSES: f32 = 0.3;
/// The smallest and the largest group. Smaller ones cost more than half of the stream again, larger ones take too long.
const GROUP: (f32, f32) = (2.0, 12.0);

/// Decides for one receiver.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    loss: f32,
    on: bool,
}

impl Protection {
    /// Takes in a report, and the round trip where it is known.
    pub fn report(&mut self, reception: &Reception, round_trip: Option<Duration>) {
        self.loss += (reception.lost - self.loss) * NEW;
        let (loss, slow) = if self.on { (LOSS_END, FAST) } else { (LOSS_BEGIN, SLOW) };
        let congested = reception.queue.is_some_and(|queue| queue >= CONGESTED);
        self.on = self.loss >= loss && round_trip.is_some_and(|time| time >= slow) && !congested;
    }

    /// Packets for which one repair packet is sent; None for no repair packets.
    pub fn group(&self) -> Option<usize> {
        self.on.then(|| (LOSSES / self.loss).clamp(GROUP.0, GROUP.1).round() as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(reports: usize, lost: f32, queue: u64, round_trip: u64) -> Protection {
        let mut protection = Protection::default();
        let queue = Some(Duration::from_millis(queue));
        for _ in 0..reports {
            let reception = Reception { lost, queue, ..Reception::default() };
            protection.report(&reception, Some(Duration::from_millis(round_trip)));
        }
        protection
    }

    #[test]
    fn a_long_way_that_loses_is_protected() {
        assert_eq!(after(10, 0.05, 0, 200).group(), Some(6));
        assert_eq!(after(10, 0.10, 0, 200).group(), Some(3));
        assert_eq!(after(10, 0.60, 0, 200).group(), Some(2));
    }

    #[test]
    fn a_short_way_a_clean_one_and_a_full_one_are_not() {
        assert_eq!(after(10, 0.05, 0, 40).group(), None, "asking again is fast enough");
        assert_eq!(after(10, 0.00, 0, 200).group(), None);
        assert_eq!(after(10, 0.10, 300, 200).group(), None, "more packets would be lost too");
        assert_eq!(after(1, 0.05, 0, 200).group(), None, "one report may be chance");
        let mut unknown = Protection::default();
        (0..10).for_each(|_| unknown.report(&Reception { lost: 0.1, ..Reception::default() }, None));
        assert_eq!(unknown.group(), None);
    }

    #[test]
    fn it_ends_when_the_way_is_clean_again() {
        let mut protection = after(10, 0.05, 0, 200);
        let clean = Reception::default();
        (0..10).for_each(|_| protection.report(&clean, Some(Duration::from_millis(200))));
        assert_eq!(protection.group(), None);
    }

    proptest! {
        #[test]
        fn it_never_costs_more_than_half(reports in prop::collection::vec((0.0_f32..=1.0, 0_u64..400, 0_u64..900), 1..60)) {
            let mut protection = Protection::default();
            for (lost, queue, round_trip) in reports {
                let reception = Reception { lost, queue: Some(Duration::from_millis(queue)), ..Reception::default() };
                protection.report(&reception, Some(Duration::from_millis(round_trip)));
                prop_assert!(protection.group().is_none_or(|group| (2..=12).contains(&group)));
            }
        }
    }
}
