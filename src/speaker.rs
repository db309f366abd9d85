//! Who speaks: a state machine over levels, with hysteresis. Pure.
//!
//! Owns: who the active speaker is ([`Speaker::current`]: one, kept through silence) and who is talking right now
//! ([`Speaker::speaking`]: any number). Does not know: layouts, events, where levels come from. Levels come in by
//! [`Speaker::update`], a few to fifty times a second.
//!
//! A challenger becomes the active speaker after having been clearly louder for [`TAKEOVER`] in all, where time in which
//! it is not clearly louder counts back at half speed: pauses between syllables do not matter, a cough is soon forgotten.
//! A speaker stays for [`HOLD`] at least, unless it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::ParticipantId;
use crate::time::Timestamp;

/// How long a challenger must be clearly louder.
pub const TAKEOVER: Duration = Duration::from_millis(250);
/// The same when the active speaker has left or fallen silent: longer than a cough.
pub const TAKEOVER_FAST: Duration = Duration::from_millis(200);
/// How long an active speaker stays at least.
pub const HOLD: Duration = Duration::from_millis(1_500);
/// How long an active speaker must have been silent to be taken over fast.
const FALLEN_SILENT: Duration = Duration::from_secs(2);
/// How long somebody is still speaking after the last sound.
const HANGOVER: Duration = Duration::from_millis(400);
/// Louder than this, in -dBov, is speech.
const SPEECH: u8 = 50;
/// By how many decibels a challenger must be louder than the active speaker.
const CLEARLY: f32 = 6.0;
/// How fast a level is forgotten, in decibels a second: the active speaker's pauses are not a challenger's chance.
const DECAY: f32 = 40.0;
/// A longer time between two updates counts as this long: nobody knows what was in between.
const STEP_MAX: Duration = Duration::from_millis(200);
/// Who has been silent for so long is forgotten until heard again.
const FORGET: Duration = Duration::from_secs(10);

/// What an update changed; the values are with [`Speaker::current`] and [`Speaker::speaking`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Another active speaker, or none any more.
    pub current: bool,
    /// Somebody began or ended speaking.
    pub speaking: bool,
}

impl Change {
    fn some(self) -> Option<Self> {
        (self.current || self.speaking).then_some(self)
    }
}

#[derive(Debug, Clone)]
struct Voice {
    /// Decaying maximum of the level, in dB below overload.
    level: f32,
    last_heard: Timestamp,
    leading: bool,
    /// Time for which it has been clearly louder than the active speaker.
    lead: Duration,
}

/// The speakers of one room.
#[derive(Debug, Clone, Default)]
pub struct Speaker {
    voices: BTreeMap<ParticipantId, Voice>,
    current: Option<ParticipantId>,
    current_since: Timestamp,
    speaking: BTreeSet<ParticipantId>,
    updated: Option<Timestamp>,
}

impl Speaker {
    /// The active speaker: who spoke last.
    pub fn current(&self) -> Option<ParticipantId> {
        self.current
    }

    /// Who is talking right now, or was 400 ms ago.
    pub fn speaking(&self) -> &BTreeSet<ParticipantId> {
        &self.speaking
    }

    /// Takes the levels of this moment in -dBov (0 loudest, 127 silence) and says whether something changed. Who is not
    /// in the list is silent. Levels of people who have left must not be given.
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

    /// Forgets who has left.
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
        // Who has fallen below speech need not be beaten by a margin.
        let to_beat = if to_beat + CLEARLY > f32::from(SPEECH) { f32::INFINITY } else { to_beat };
        for (id, voice) in &mut self.voices {
            let leads = Some(*id) != self.current && loud.get(id).is_some_and(|level| f32::from(*level) <= to_beat);
            // Only what lies between two leading moments was led.
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
        // The one who has led for longest, of equals the louder one.
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
    fn the_first_who_speaks_is_the_speaker_and_stays_in_silence() {
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
    fn a_challenger_must_be_clearly_louder_for_a_while() {
        let mut room = Room::default();
        room.hear(3_000, &[(ANN, 30)]);
        assert_eq!(room.hear(5_000, &[(ANN, 30), (BEN, 26)]).current(), Some(ANN), "4 dB are not clear");
        assert_eq!(room.hear(200, &[(ANN, 30), (BEN, 20)]).current(), Some(ANN));
        assert_eq!(room.hear(100, &[(ANN, 30), (BEN, 20)]).current(), Some(BEN));
        assert_eq!(room.speaker.speaking().len(), 2);
    }

    #[test]
    fn who_just_began_is_not_interrupted() {
        let mut room = Room::default();
        room.hear(400, &[(ANN, 30)]);
        assert_eq!(room.hear(1_000, &[(ANN, 30), (BEN, 10)]).current(), Some(ANN));
        assert_eq!(room.hear(600, &[(ANN, 30), (BEN, 10)]).current(), Some(BEN));
    }

    #[test]
    fn a_cough_changes_nothing() {
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
    fn pauses_between_words_do_not_help_a_quiet_challenger() {
        let mut room = Room::default();
        room.hear(2_000, &[(ANN, 25)]);
        for _ in 0..40 {
            room.hear(200, &[(ANN, 25), (BEN, 45)]);
            assert_eq!(room.hear(120, &[(BEN, 45)]).current(), Some(ANN));
        }
    }

    #[test]
    fn when_the_speaker_has_left_the_next_one_comes_fast() {
        let mut room = Room::default();
        room.hear(500, &[(ANN, 30)]);
        assert_eq!(room.speaker.remove(ANN), Some(Change { current: true, speaking: true }));
        assert_eq!(room.current(), None);
        assert_eq!(room.hear(240, &[(BEN, 40)]).current(), Some(BEN));
        assert_eq!(room.speaker.remove(ANN), None);
    }

    #[test]
    fn nobody_is_kept_for_ever() {
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
                20 => (prop::collection::vec((0_u32..5, 0_u8..=127), 0..5), 1_u64..300).prop_map(|(l, ms)| Op::Levels(l, ms)),
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
