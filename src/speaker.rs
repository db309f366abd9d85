//! Who speaks: a state machine over levels, with hysteresis. Pure.
//!
//! Owns: when somebody counts as speaking, and when the floor passes on. Does not know: audio, tiles, clocks.
//! Levels come in about ten times a second by [`Speaker::update`]; it says whether anything changed.
//!
//! Rules: whoever is louder than [`TALKING`] for [`ONSET`] speaks, until silent for [`HANGOVER`]. The floor passes to a
//! challenger who has been speaking and clearly louder than its holder for [`CHALLENGE`], but not before the holder has
//! had it for [`HOLD`]; a holder who is gone or has been silent for [`VACANT`] loses it to the first who speaks. In
//! silence the last speaker keeps the floor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::ParticipantId;
use crate::time::Timestamp;

/// Softer than this is not talking, in -dBov.
pub const TALKING: u8 = 50;
/// How long somebody must be loud before it counts: a cough does not.
pub const ONSET: Duration = Duration::from_millis(200);
/// Pauses shorter than this are part of speaking.
pub const HANGOVER: Duration = Duration::from_millis(400);
/// How long a challenger must be louder.
pub const CHALLENGE: Duration = Duration::from_millis(250);
/// By how many decibels a challenger must be louder than a holder who speaks too.
pub const MARGIN: u8 = 6;
/// The floor stays with its holder for at least so long.
pub const HOLD: Duration = Duration::from_millis(1_500);
/// A holder silent for so long does not hold on to it.
pub const VACANT: Duration = Duration::from_secs(2);

/// One voice as it was heard so far.
#[derive(Debug, Default, Clone, Copy)]
struct Voice {
    level: u8,
    /// Since when it has been loud without a pause over the hangover.
    loud_since: Option<Timestamp>,
    last_loud: Option<Timestamp>,
    /// Since when it has been beating the holder of the floor.
    ahead_since: Option<Timestamp>,
}

/// See the module's first lines.
#[derive(Debug, Default)]
pub struct Speaker {
    voices: BTreeMap<ParticipantId, Voice>,
    current: Option<ParticipantId>,
    since: Timestamp,
    speaking: BTreeSet<ParticipantId>,
}

/// Something changed: ask [`Speaker::current`] and [`Speaker::speaking`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change;

impl Speaker {
    /// Takes in everyone's level (-dBov, 127 silence); whoever is missing is silent.
    pub fn update(&mut self, now: Timestamp, levels: &[(ParticipantId, u8)]) -> Option<Change> {
        for voice in self.voices.values_mut() {
            voice.level = 127;
        }
        for (id, level) in levels {
            self.voices.entry(*id).or_default().level = *level;
        }
        for voice in self.voices.values_mut() {
            if voice.level <= TALKING {
                voice.loud_since.get_or_insert(now);
                voice.last_loud = Some(now);
            } else if voice.last_loud.is_none_or(|last| now.since(last) >= HANGOVER) {
                voice.loud_since = None;
            }
        }
        let speaking = self.voices.iter().filter(|(_, voice)| voice.speaks()).map(|(id, _)| *id).collect();
        let floor = self.next_floor(now, &speaking);
        if let Some(next) = floor {
            self.current = Some(next);
            self.since = now;
            for voice in self.voices.values_mut() {
                voice.ahead_since = None;
            }
        }
        let changed = floor.is_some() || speaking != self.speaking;
        self.speaking = speaking;
        changed.then_some(Change)
    }

    /// Who spoke last.
    pub const fn current(&self) -> Option<ParticipantId> {
        self.current
    }

    /// Who speaks now.
    pub const fn speaking(&self) -> &BTreeSet<ParticipantId> {
        &self.speaking
    }

    /// Forgets somebody who left.
    pub fn remove(&mut self, id: ParticipantId) {
        self.voices.remove(&id);
        self.speaking.remove(&id);
        if self.current == Some(id) {
            self.current = None;
        }
    }

    /// Whom the floor passes to now, if anybody.
    fn next_floor(&mut self, now: Timestamp, speaking: &BTreeSet<ParticipantId>) -> Option<ParticipantId> {
        let holder = self.current.and_then(|id| self.voices.get(&id).copied());
        let vacant = holder.is_none_or(|voice| voice.last_loud.is_none_or(|last| now.since(last) >= VACANT));
        let loudest = |ids: &mut dyn Iterator<Item = ParticipantId>, voices: &BTreeMap<ParticipantId, Voice>| {
            ids.min_by_key(|id| voices.get(id).map_or(127, |voice| voice.level))
        };
        if vacant {
            let mut others = speaking.iter().copied().filter(|id| Some(*id) != self.current);
            return loudest(&mut others, &self.voices);
        }
        let to_beat = holder.map_or(127, |voice| voice.level.saturating_sub(MARGIN));
        for (id, voice) in &mut self.voices {
            let ahead = Some(*id) != self.current && speaking.contains(id) && voice.level <= to_beat;
            voice.ahead_since = ahead.then(|| voice.ahead_since.unwrap_or(now));
        }
        if now.since(self.since) < HOLD {
            return None;
        }
        let ready = |voice: &Voice| voice.ahead_since.is_some_and(|since| now.since(since) >= CHALLENGE);
        let mut challengers = self.voices.iter().filter(|(_, voice)| ready(voice)).map(|(id, _)| *id);
        loudest(&mut challengers, &self.voices)
    }
}

impl Voice {
    /// Loud for long enough, and not silent since for longer than a pause.
    fn speaks(&self) -> bool {
        self.loud_since.zip(self.last_loud).is_some_and(|(since, last)| last.since(since) >= ONSET)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANN: ParticipantId = ParticipantId(1);
    const BOB: ParticipantId = ParticipantId(2);
    const STEP: Duration = Duration::from_millis(100);

    /// Feeds the same levels for so many tenths of a second.
    fn feed(speaker: &mut Speaker, now: &mut Timestamp, tenths: u32, levels: &[(ParticipantId, u8)]) {
        for _ in 0..tenths {
            speaker.update(*now, levels);
            *now = *now + STEP;
        }
    }

    #[test]
    fn a_cough_is_not_speech() {
        let (mut speaker, mut now) = (Speaker::default(), Timestamp::from_micros(1));
        feed(&mut speaker, &mut now, 2, &[(ANN, 10)]);
        feed(&mut speaker, &mut now, 10, &[(ANN, 127)]);
        assert_eq!(speaker.current(), None);
        feed(&mut speaker, &mut now, 4, &[(ANN, 10)]);
        assert_eq!(speaker.current(), Some(ANN));
    }

    #[test]
    fn the_floor_passes_to_who_goes_on_and_stays_in_silence() {
        let (mut speaker, mut now) = (Speaker::default(), Timestamp::from_micros(1));
        feed(&mut speaker, &mut now, 30, &[(ANN, 20), (BOB, 127)]);
        // As loud as Ann: both speak, the floor stays.
        feed(&mut speaker, &mut now, 30, &[(ANN, 20), (BOB, 20)]);
        assert_eq!(speaker.current(), Some(ANN));
        assert_eq!(speaker.speaking().len(), 2);
        // Clearly louder.
        feed(&mut speaker, &mut now, 5, &[(ANN, 30), (BOB, 18)]);
        assert_eq!(speaker.current(), Some(BOB));
        feed(&mut speaker, &mut now, 50, &[]);
        assert_eq!(speaker.current(), Some(BOB));
        assert!(speaker.speaking().is_empty());
        // After silence anybody takes over at once.
        feed(&mut speaker, &mut now, 3, &[(ANN, 40)]);
        assert_eq!(speaker.current(), Some(ANN));
    }

    #[test]
    fn short_pauses_are_part_of_speech() {
        let (mut speaker, mut now) = (Speaker::default(), Timestamp::from_micros(1));
        feed(&mut speaker, &mut now, 5, &[(ANN, 20)]);
        for _ in 0..10 {
            feed(&mut speaker, &mut now, 3, &[(ANN, 90)]);
            assert!(speaker.speaking().contains(&ANN));
            feed(&mut speaker, &mut now, 2, &[(ANN, 20)]);
        }
    }

    proptest! {
        #[test]
        fn never_flips_faster_than_the_hold_and_never_names_a_ghost(
            steps in proptest::collection::vec((0u8..=127, 0u8..=127, 0u8..=127, 0u8..30), 1..300),
        ) {
            let (mut speaker, mut now) = (Speaker::default(), Timestamp::from_micros(1));
            let mut flips: Vec<(Timestamp, ParticipantId)> = Vec::new();
            let mut vacant_since = BTreeMap::new();
            for (a, b, c, leave) in steps {
                let levels = [(ANN, a), (BOB, b), (ParticipantId(3), c)];
                let before = speaker.current();
                let changed = speaker.update(now, &levels);
                for (id, level) in levels {
                    if level <= TALKING { vacant_since.insert(id, now); }
                }
                if speaker.current() != before {
                    prop_assert!(changed.is_some());
                    let to = speaker.current().expect("an update takes the floor from nobody without giving it on");
                    prop_assert!(speaker.speaking().contains(&to));
                    if let (Some((since, holder)), Some(_)) = (flips.last(), before) {
                        let vacant = vacant_since.get(holder).is_none_or(|last| now.since(*last) >= VACANT);
                        prop_assert!(vacant || now.since(*since) >= HOLD, "the floor was taken too soon");
                    }
                    flips.push((now, to));
                }
                if leave < 3 {
                    let id = ParticipantId(u32::from(leave) + 1);
                    speaker.remove(id);
                    prop_assert_ne!(speaker.current(), Some(id));
                    prop_assert!(!speaker.speaking().contains(&id));
                }
                now = now + STEP;
            }
        }
    }
}
