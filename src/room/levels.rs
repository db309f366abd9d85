//! Audio levels for the events: at a limited rate and without silent participants.
//!
//! Owns: when the next levels are due. Does not know: readers. In: the mixer's levels; out: those to send.

use std::time::Duration;

use crate::id::ParticipantId;
use crate::room::document::LevelDocument;
use crate::time::Timestamp;

/// Shortest interval between levels: enough for a level meter.
const INTERVAL: Duration = Duration::from_millis(200);
/// The level of silence in -dBov (RFC 6464).
const SILENCE: u8 = 127;

/// Selects the levels to send.
#[derive(Debug, Default)]
pub(super) struct Levels {
    reported: Option<Timestamp>,
    /// The latest levels were not empty.
    audible: bool,
}

impl Levels {
    /// The levels to send of `levels` (-dBov by participant), if they are due: those above silence, and once an empty
    /// list when all participants have fallen silent.
    pub(super) fn update(&mut self, now: Timestamp, levels: &[(ParticipantId, u8)]) -> Option<Vec<LevelDocument>> {
        if self.reported.is_some_and(|reported| now.since(reported) < INTERVAL) {
            return None;
        }
        let above = levels.iter().filter(|(_, level)| *level < SILENCE);
        let above: Vec<_> = above
            .map(|(participant, level)| LevelDocument { participant: *participant, dbov: -(*level as i8) })
            .collect();
        if above.is_empty() && !self.audible {
            return None;
        }
        self.reported = Some(now);
        self.audible = !above.is_empty();
        Some(above)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANN: ParticipantId = ParticipantId(1);
    const BOB: ParticipantId = ParticipantId(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    #[test]
    fn only_levels_above_silence_are_sent_and_silence_is_sent_once() {
        let mut levels = Levels::default();
        assert_eq!(levels.update(at(0), &[(ANN, 127), (BOB, 127)]), None);
        let ann = vec![LevelDocument { participant: ANN, dbov: -32 }];
        assert_eq!(levels.update(at(100), &[(ANN, 32), (BOB, 127)]), Some(ann));
        assert_eq!(levels.update(at(200), &[(ANN, 30)]), None, "too soon");
        assert_eq!(levels.update(at(300), &[(ANN, 127)]), Some(vec![]));
        assert_eq!(levels.update(at(600), &[(ANN, 127)]), None);
        let loud = vec![LevelDocument { participant: BOB, dbov: 0 }];
        assert_eq!(levels.update(at(700), &[(BOB, 0)]), Some(loud));
    }

    proptest! {
        #[test]
        fn at_most_five_a_second(steps in prop::collection::vec((0u64..300, 0u8..=127), 1..200)) {
            let (mut levels, mut now, mut reported) = (Levels::default(), 0, Vec::new());
            for (step, level) in steps {
                now += step;
                if levels.update(at(now), &[(ANN, level)]).is_some() {
                    reported.push(now);
                }
            }
            prop_assert!(reported.windows(6).all(|six| six[5] - six[0] >= 1000), "{reported:?}");
        }
    }
}
