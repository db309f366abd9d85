//! Forward error correction: whether to send FlexFEC repair packets, and for groups of which size.
//!
//! Owns: [`Protection`], one for each receiver that supports FlexFEC. Does not know: packets, streams. In: losses and
//! round-trip time; out: the size of groups. Retransmissions cost less and repair more, but take one and a half round
//! trips. Where that is too late for a picture, one repair packet for each group corrects a single loss at once. Losses
//! by congestion are not protected, since more packets would cause more losses.

use std::time::Duration;

use super::Reception;

/// Share of losses at which protection begins, and below which it ends.
const LOSS_BEGIN: f32 = 0.02;
/// See [`LOSS_BEGIN`].
const LOSS_END: f32 = 0.01;
/// Round-trip time above which retransmissions are too slow, and below which they are fast enough.
const SLOW: Duration = Duration::from_millis(100);
/// See [`SLOW`].
const FAST: Duration = Duration::from_millis(80);
/// Queueing delay that indicates congestion.
const CONGESTED: Duration = Duration::from_millis(80);
/// Weight of a new report in the average of losses.
const NEW: f32 = 0.3;
/// Average losses in a group: a repair packet corrects only one.
const LOSSES: f32 = 0.3;
/// Smallest and largest group. Smaller ones cost more than half of the stream, larger ones take too long.
const GROUP: (f32, f32) = (2.0, 12.0);

/// Decides on protection for one receiver.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    loss: f32,
    on: bool,
}

impl Protection {
    /// Takes in a reception, and the round-trip time where it is known.
    pub fn report(&mut self, reception: &Reception, round_trip: Option<Duration>) {
        self.loss += (reception.lost - self.loss) * NEW;
        let (loss, slow) = if self.on { (LOSS_END, FAST) } else { (LOSS_BEGIN, SLOW) };
        let congested = reception.queue.is_some_and(|queue| queue >= CONGESTED);
        self.on = self.loss >= loss && round_trip.is_some_and(|time| time >= slow) && !congested;
    }

    /// Number of packets for each repair packet; None for no protection.
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
    fn a_path_with_losses_and_a_long_round_trip_is_protected() {
        assert_eq!(after(10, 0.05, 0, 200).group(), Some(6));
        assert_eq!(after(10, 0.10, 0, 200).group(), Some(3));
        assert_eq!(after(10, 0.60, 0, 200).group(), Some(2));
    }

    #[test]
    fn short_lossless_and_congested_paths_are_not_protected() {
        assert_eq!(after(10, 0.05, 0, 40).group(), None, "retransmissions are fast enough");
        assert_eq!(after(10, 0.00, 0, 200).group(), None);
        assert_eq!(after(10, 0.10, 300, 200).group(), None, "more packets would be lost too");
        assert_eq!(after(1, 0.05, 0, 200).group(), None, "one report may be chance");
        let mut unknown = Protection::default();
        (0..10).for_each(|_| unknown.report(&Reception { lost: 0.1, ..Reception::default() }, None));
        assert_eq!(unknown.group(), None);
    }

    #[test]
    fn protection_ends_with_the_losses() {
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
