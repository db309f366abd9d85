//! Detection of the active speaker: a state machine over levels, with hysteresis.
//!
//! Owns: the active speaker ([`Speaker::current`]: one participant, kept in silence) and the talkers
//! ([`Speaker::speaking`]). Does not know: layouts, events, the source of levels. In: levels, 5 to 50 times a second,
//! by [`Speaker::update`]. Out: whether the active speaker or the talkers have changed.
//!
//! A challenger becomes the active speaker after it was louder by a margin for [`TAKEOVER`] in total. Time in which it
//! is not subtracts at half speed, so that pauses between syllables have little effect and a cough has none later. An
//! active speaker stays for at least [`HOLD`], unless it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::ParticipantId;
use crate::time::Timestamp;

/// Time for which a challenger must be louder.
pub const TAKEOVER: Duration = Duration::from_millis(250);
/// The same if the active speaker has left or is silent: longer than a cough.
pub const TAKEOVER_FAST: Duration = Duration::from_millis(200);
/// Shortest time as active speaker.
pub const HOLD: Duration = Duration::from_millis(1_500);
/// Silence of the active speaker after which [`TAKEOVER_FAST`] applies.
const FALLEN_SILENT: Duration = Duration::from_secs(2);
/// Time for which a talker counts as speaking after its level has dropped.
const HANGOVER: Duration = Duration::from_millis(400);
/// Levels above this (fewer -dBov) are speech.
const SPEECH: u8 = 50;
/// Margin of a challenger above the active speaker, in dB.
const CLEARLY: f32 = 6.0;
/// Decay of the level maximum in dB/s: covers the pauses of the active speaker.
const DECAY: f32 = 40.0;
/// Longest time between two updates that counts.
const STEP_MAX: Duration = Duration::from_millis(200);
/// Silence after which the state of a participant is dropped.
const FORGET: Duration = Duration::from_secs(10);

/// The changes by an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The active speaker has changed, or there is none any more.
    pub current: bool,
    /// The set of talkers has changed.
    pub speaking: bool,
}

impl Change {
    fn some(self) -> Option<Self> {
        (self.current || self.speaking).then_some(self)
    }
}

#[derive(Debug, Clone)]
struct Voice {
    /// Decaying maximum of the level in -dBov.
    level: f32,
    last_heard: Timestamp,
    leading: bool,
    /// Time for which it has been louder than the active speaker by the margin.
    lead: Duration,
}

/// The speaker detection of one room.
#[derive(Debug, Clone, Default)]
pub struct Speaker {
    voices: BTreeMap<ParticipantId, Voice>,
    current: Option<ParticipantId>,
    current_since: Timestamp,
    speaking: BTreeSet<ParticipantId>,
    updated: Option<Timestamp>,
}

impl Speaker {
    /// The active speaker.
    pub fn current(&self) -> Option<ParticipantId> {
        self.current
    }

    /// The participants that are talking, or were within the last 400 ms.
    pub fn speaking(&self) -> &BTreeSet<ParticipantId> {
        &self.speaking
    }

    /// Handles the present levels in -dBov (0 loudest, 127 silence). A participant without a level is silent. Levels of
    /// participants that have left must not be passed.
    pub fn update(&mut self, now: Timestamp, levels: &[(ParticipantId, u8)]) -> Option<Change> {
        let step = self.updated.map_or(Duration::ZERO, |before| now.since(before));
        self.updated = Some(now);
        for voice in self.voices.values_mut() {
            voice.level += DECAY * step.as_secs_f32();
        }
        let loud = levels.iter().copied().filter(|(_, level)| *level <= SPEECH);
        let loud: BTreeMap<ParticipantId, u8> = loud.collect();
        for (&id, &level) in &loud {
            let level = f32::from(level);
            let new = Voice { level, last_heard: now, leading: false, lead: Duration::ZERO };
            let voice = self.voices.entry(id).or_insert(new);
            voice.level = voice.level.min(level);
            voice.last_heard = now;
        }
        let current = self.current;
        self.voices.retain(|id, voice| Some(*id) == current || now.since(voice.last_heard) < FORGET);
        self.count_leads(step.min(STEP_MAX), &loud);
        let change = Change { current: self.take_over(now), speaking: self.refresh_speaking(now) };
        change.some()
    }

    /// Removes a participant that has left.
    pub fn remove(&mut self, id: ParticipantId) -> Option<Change> {
        self.voices.remove(&id);
        let current = self.current == Some(id);
        if current {
            self.current = None;
        }
        Change { current, speaking: self.speaking.remove(&id) }.some()
    }

    fn count_leads(&mut self, step: Duration, loud: &BTreeMap<ParticipantId, u8>) {
        let to_beat = self.current.and_then(|id| self.voices.get(&id)).map_or(f32::INFINITY, |v| v.level - CLEARLY);
        // A silent active speaker needs no margin.
        let to_beat = if to_beat + CLEARLY > f32::from(SPEECH) { f32::INFINITY } else { to_beat };
        for (id, voice) in &mut self.voices {
            let leads = Some(*id) != self.current && loud.get(id).is_some_and(|level| f32::from(*level) <= to_beat);
            // Time counts only between two updates in which it is louder.
            if leads && voice.leading {
                voice.lead = (voice.lead + step).min(TAKEOVER * 2);
            } else if !leads {
                voice.lead = voice.lead.saturating_sub(step / 2);
            }
            voice.leading = leads;
        }
    }

    fn take_over(&mut self, now: Timestamp) -> bool {
        let silent = match self.current {
            None => true,
            Some(id) => self.voices.get(&id).is_none_or(|voice| now.since(voice.last_heard) >= FALLEN_SILENT),
        };
        if self.current.is_some() && now.since(self.current_since) < HOLD {
            return false;
        }
        let needed = if silent { TAKEOVER_FAST } else { TAKEOVER };
        let able = self.voices.iter().filter(|(_, voice)| voice.leading && voice.lead >= needed);
        // The challenger with the longest time, and the louder one if equal.
        let best = able.max_by(|(_, a), (_, b)| a.lead.cmp(&b.lead).then(b.level.total_cmp(&a.level)));
        let Some((&id, _)) = best else { return false };
        self.current = Some(id);
        self.current_since = now;
        for voice in self.voices.values_mut() {
            voice.lead = Duration::ZERO;
            voice.leading = false;
        }
        true
    }

    fn refresh_speaking(&mut self, now: Timestamp) -> bool {
        let heard = self.voices.iter().filter(|(_, voice)| now.since(voice.last_heard) < HANGOVER);
        let speaking: BTreeSet<ParticipantId> = heard.map(|(id, _)| *id).collect();
        if speaking == self.speaking {
            return false;
        }
        self.speaking = speaking;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANN: ParticipantId = ParticipantId(1);
    const BEN: ParticipantId = ParticipantId(2);
    const STEP: u64 = 20;

    /// Drives a speaker with one update each 20 ms.
    #[derive(Default)]
    struct Room {
        speaker: Speaker,
        now: u64,
    }

    impl Room {
        fn hear(&mut self, ms: u64, levels: &[(ParticipantId, u8)]) -> &mut Self {
            for _ in 0..ms / STEP {
                self.now += STEP;
                self.speaker.update(Timestamp::from_micros(self.now * 1_000), levels);
            }
            self
        }

        fn current(&self) -> Option<ParticipantId> {
            self.speaker.current()
        }
    }

    #[test]
    fn the_first_talker_becomes_the_active_speaker_and_stays_in_silence() {
        let mut room = Room::default();
        assert_eq!(room.hear(140, &[(ANN, 30)]).current(), None);
        assert_eq!(room.hear(140, &[(ANN, 30)]).current(), Some(ANN));
        room.hear(300, &[]);
        assert!(room.speaker.speaking().contains(&ANN), "a pause");
        room.hear(200, &[(ANN, 127)]);
        assert!(room.speaker.speaking().is_empty());
        assert_eq!(room.hear(60_000, &[]).current(), Some(ANN));
    }

    #[test]
    fn a_challenger_must_be_louder_by_the_margin_for_a_while() {
        let mut room = Room::default();
        room.hear(3_000, &[(ANN, 30)]);
        assert_eq!(room.hear(5_000, &[(ANN, 30), (BEN, 26)]).current(), Some(ANN), "4 dB are not clear");
        assert_eq!(room.hear(200, &[(ANN, 30), (BEN, 20)]).current(), Some(ANN));
        assert_eq!(room.hear(100, &[(ANN, 30), (BEN, 20)]).current(), Some(BEN));
        assert_eq!(room.speaker.speaking().len(), 2);
    }

    #[test]
    fn a_new_active_speaker_is_not_replaced_at_once() {
        let mut room = Room::default();
        room.hear(400, &[(ANN, 30)]);
        assert_eq!(room.hear(1_000, &[(ANN, 30), (BEN, 10)]).current(), Some(ANN));
        assert_eq!(room.hear(600, &[(ANN, 30), (BEN, 10)]).current(), Some(BEN));
    }

    #[test]
    fn a_cough_does_not_change_the_active_speaker() {
        let mut room = Room::default();
        room.hear(3_000, &[(ANN, 30)]);
        for _ in 0..20 {
            room.hear(180, &[(ANN, 40), (BEN, 5)]);
            assert_eq!(room.hear(800, &[(ANN, 30)]).current(), Some(ANN));
        }
        room.hear(3_000, &[]);
        room.hear(180, &[(BEN, 5)]);
        assert_eq!(room.hear(2_000, &[]).current(), Some(ANN), "in silence neither");
    }

    #[test]
    fn pauses_of_the_active_speaker_do_not_help_a_quiet_challenger() {
        let mut room = Room::default();
        room.hear(2_000, &[(ANN, 25)]);
        for _ in 0..40 {
            room.hear(200, &[(ANN, 25), (BEN, 45)]);
            assert_eq!(room.hear(120, &[(BEN, 45)]).current(), Some(ANN));
        }
    }

    #[test]
    fn the_active_speaker_is_replaced_fast_after_it_has_left() {
        let mut room = Room::default();
        room.hear(500, &[(ANN, 30)]);
        assert_eq!(room.speaker.remove(ANN), Some(Change { current: true, speaking: true }));
        assert_eq!(room.current(), None);
        assert_eq!(room.hear(240, &[(BEN, 40)]).current(), Some(BEN));
        assert_eq!(room.speaker.remove(ANN), None);
    }

    #[test]
    fn silent_participants_are_removed() {
        let mut room = Room::default();
        for id in 0..500 {
            room.hear(20, &[(ParticipantId(id), 30)]);
        }
        room.hear(11_000, &[]);
        assert!(room.speaker.voices.len() <= 1);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Levels(Vec<(u32, u8)>, u64),
        Remove(u32),
    }

    proptest! {
        #[test]
        fn it_never_flips_faster_than_the_hold(ops in prop::collection::vec(
            prop_oneof![
                20 => (prop::collection::vec((0_u32..5, 0_u8..=127), 0..5), 1_u64..300)
                    .prop_map(|(l, ms)| Op::Levels(l, ms)),
                1 => (0_u32..5).prop_map(Op::Remove),
            ],
            1..400,
        )) {
            let mut speaker = Speaker::default();
            let (mut now, mut changed) = (Timestamp::from_micros(5_000_000), None::<Timestamp>);
            for op in ops {
                let before = speaker.current();
                match op {
                    Op::Levels(levels, ms) => {
                        now = now + Duration::from_millis(ms);
                        let levels: Vec<_> = levels.into_iter().map(|(id, level)| (ParticipantId(id), level)).collect();
                        let spoke = speaker.speaking().clone();
                        let change = speaker.update(now, &levels).unwrap_or_default();
                        prop_assert_eq!(change.current, before != speaker.current());
                        prop_assert_eq!(change.speaking, &spoke != speaker.speaking());
                        if change.current {
                            if let (Some(_), Some(changed)) = (before, changed) {
                                prop_assert!(now.since(changed) >= HOLD);
                            }
                            changed = Some(now);
                        }
                        prop_assert!(before.is_none() || speaker.current().is_some(), "silence keeps the speaker");
                    }
                    Op::Remove(id) => {
                        let id = ParticipantId(id);
                        speaker.remove(id);
                        prop_assert!(speaker.current() != Some(id) && !speaker.speaking().contains(&id));
                    }
                }
            }
        }
    }
}
