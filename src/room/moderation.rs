//! What moderators decide about participants: mutes, permissions, removal.
//!
//! Owns: the mutes of moderators, which are separate from a participant's own; who may speak, share, chat and unmute;
//! who is kept out, and until when. Does not know: tokens, HTTP, who is a moderator (callers check it). In: decisions.
//! Out: events, and what of a participant is mixed and shown.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::chat::Readers;
use super::document::{Event, LeaveReason, ParticipantPatch, Role};
use super::{Effect, Person, Room};
use crate::id::ParticipantId;
use crate::media::{Kind, SourceKind};
use crate::time::Timestamp;

/// Longest time for which somebody is kept out: 30 days.
pub const KEEP_OUT_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Most entries of those who are kept out; the one that ends first gives way.
const KEPT_OUT_MAX: usize = 1_000;

/// Who a joiner is, to recognize the same person: derived from the token, else from address and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity(pub u64);

/// A moderator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moderator {
    /// A participant with the role.
    Participant(ParticipantId),
    /// A program without a participant.
    Program,
}

impl Serialize for Moderator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Participant(id) => id.serialize(serializer),
            Self::Program => serializer.serialize_str("moderator"),
        }
    }
}

/// Who changes a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changer {
    /// The participant itself.
    Itself,
    /// A moderator.
    Moderator(Moderator),
}

/// Who may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permitted {
    /// All participants.
    #[default]
    Everyone,
    /// Moderators only.
    Moderators,
}

/// Who may do what in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WhoMay {
    /// Share a screen.
    pub share: Permitted,
    /// Be heard and seen. Moderators may allow it to others (`speaker_allowed`).
    pub speak: Permitted,
    /// Write to everyone. Messages to moderators are always allowed.
    pub chat: Permitted,
    /// Turn the own microphone on again.
    pub unmute: Permitted,
}

/// Changes of [`WhoMay`]; absent fields remain as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhoMayPatch {
    share: Option<Permitted>,
    speak: Option<Permitted>,
    chat: Option<Permitted>,
    unmute: Option<Permitted>,
}

impl WhoMay {
    pub(super) fn with(self, patch: WhoMayPatch) -> Self {
        Self {
            share: patch.share.unwrap_or(self.share),
            speak: patch.speak.unwrap_or(self.speak),
            chat: patch.chat.unwrap_or(self.chat),
            unmute: patch.unmute.unwrap_or(self.unmute),
        }
    }
}

/// What moderators have decided about a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Decided {
    /// Who has muted it.
    pub(super) muted_by: Option<Moderator>,
    /// Who has stopped its camera.
    pub(super) video_stopped_by: Option<Moderator>,
    /// It may speak although only moderators may.
    pub(super) speaker_allowed: bool,
    /// It was asked to unmute, and may do so although only moderators may.
    asked_to_unmute: bool,
    /// By the rules of the room it is neither heard nor seen.
    pub(super) listens: bool,
    /// By the rules of the room its screen is not shown.
    pub(super) no_screen: bool,
    /// What recordings of its tracks do not get.
    withheld: Withheld,
}

/// The kinds of a participant's sources that are kept from recordings of its tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Withheld(u8);

impl Withheld {
    /// Of [`Self::bits`].
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// As bits, for an atomic.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether sources of this kind are withheld.
    pub const fn contains(self, kind: SourceKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    const fn with(self, kind: SourceKind, is_withheld: bool) -> Self {
        Self(self.0 | ((is_withheld as u8) << kind as u8))
    }
}

/// A decision about participants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let a waiting participant in.
    Admit(ParticipantId),
    /// Let all waiting participants in.
    AdmitAll,
    /// Allow a participant to unmute, and ask it to.
    AskUnmute(ParticipantId),
    /// Mute all other participants below moderator.
    MuteOthers,
    /// Remove a participant, and keep the same person out for this time.
    Remove(ParticipantId, Duration),
}

/// Why a change or a decision is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModerationError {
    /// The participant is not there.
    #[error("there is no participant `{0}` in this room")]
    NoParticipant(ParticipantId),
    /// A moderator has muted the participant.
    #[error("a moderator has muted you: raise your hand to ask for permission to speak")]
    MutedByModerator,
    /// A moderator has stopped the camera.
    #[error("a moderator has stopped your camera: raise your hand to ask for permission")]
    StoppedByModerator,
    /// Only moderators let people unmute.
    #[error("only moderators may unmute people in this room: raise your hand to ask for permission")]
    MayNotUnmute,
}

/// Those who are kept out, and until when.
#[derive(Debug, Default)]
pub(super) struct KeptOut(BTreeMap<Identity, Timestamp>);

impl KeptOut {
    fn add(&mut self, who: Identity, until: Timestamp, now: Timestamp) {
        self.0.retain(|_, until| *until > now);
        if self.0.len() >= KEPT_OUT_MAX
            && let Some(first) = self.0.iter().min_by_key(|(_, until)| **until).map(|(who, _)| *who)
        {
            self.0.remove(&first);
        }
        self.0.insert(who, until);
    }

    /// Each who is kept out, with the time that is left.
    fn all(&self, now: Timestamp) -> impl Iterator<Item = (Identity, Duration)> {
        let kept = self.0.iter().filter(move |(_, until)| **until > now);
        kept.map(move |(who, until)| (*who, until.since(now)))
    }

    /// For how long somebody is still kept out.
    pub(super) fn left(&self, who: Identity, now: Timestamp) -> Option<Duration> {
        self.0.get(&who).filter(|until| **until > now).map(|until| until.since(now))
    }
}

impl Person {
    /// Whether its audio is not mixed.
    pub(super) const fn is_muted(&self) -> bool {
        self.audio_muted || self.decided.muted_by.is_some() || self.decided.listens
    }

    /// Whether its camera is not shown.
    pub(super) const fn is_dark(&self) -> bool {
        self.video_muted || self.decided.video_stopped_by.is_some() || self.decided.listens
    }

    /// Whether a moderator's decision must be enforced by the server.
    pub(super) const fn is_restricted(&self) -> bool {
        let Decided { muted_by, video_stopped_by, listens, no_screen, .. } = self.decided;
        muted_by.is_some() || video_stopped_by.is_some() || listens || no_screen
    }
}

impl Room {
    /// Applies the rules of the room to all participants.
    pub(super) fn apply_rules(&mut self) {
        let who_may = self.who_may;
        for person in self.people.values_mut() {
            let is_moderator = person.role >= Role::Moderator;
            let restricted = |permitted| permitted == Permitted::Moderators && !is_moderator;
            person.decided.listens = restricted(who_may.speak) && !person.decided.speaker_allowed;
            person.decided.no_screen = person.decided.listens || restricted(who_may.share);
        }
        self.withhold();
    }

    /// Keeps what moderators do not allow from recordings of tracks, since a client may go on sending it.
    fn withhold(&mut self) {
        for (id, person) in &mut self.people {
            let Decided { muted_by, video_stopped_by, listens, no_screen, withheld: before, .. } = person.decided;
            let withheld = Withheld::default()
                .with(SourceKind::Microphone, listens || muted_by.is_some())
                .with(SourceKind::Camera, listens || video_stopped_by.is_some())
                .with(SourceKind::Screen, no_screen);
            if withheld == before {
                continue;
            }
            person.decided.withheld = withheld;
            self.effects.push_back(Effect::Withhold(*id, withheld));
            // A picture that was withheld has no predecessor in the recording.
            let resumes =
                |kind: SourceKind| kind.kind() == Kind::Video && before.contains(kind) && !withheld.contains(kind);
            let resumed = person.sources.iter().filter(|source| resumes(source.kind));
            self.effects.extend(resumed.map(|source| Effect::Keyframe(*id, source.id)));
        }
    }

    /// Whether a participant may write to everyone.
    pub(super) fn may_chat(&self, participant: ParticipantId) -> bool {
        let is_moderator = || self.people.get(&participant).is_some_and(|person| person.role >= Role::Moderator);
        self.who_may.chat == Permitted::Everyone || is_moderator()
    }

    /// Checks a change of a participant.
    ///
    /// # Errors
    /// See [`ModerationError`].
    pub fn check_change(
        &self,
        by: Changer,
        participant: ParticipantId,
        patch: &ParticipantPatch,
    ) -> Result<(), ModerationError> {
        let known = self.people.get(&participant).filter(|person| person.connected);
        let person = known.ok_or(ModerationError::NoParticipant(participant))?;
        if by != Changer::Itself || person.role >= Role::Moderator {
            return Ok(());
        }
        let decided = person.decided;
        if patch.audio_muted == Some(false) && decided.muted_by.is_some() {
            return Err(ModerationError::MutedByModerator);
        }
        if patch.video_muted == Some(false) && decided.video_stopped_by.is_some() {
            return Err(ModerationError::StoppedByModerator);
        }
        let unmutes = patch.audio_muted == Some(false) && person.audio_muted;
        if unmutes && self.who_may.unmute == Permitted::Moderators && !decided.asked_to_unmute {
            return Err(ModerationError::MayNotUnmute);
        }
        Ok(())
    }

    /// Sets the mutes of a patch: of the participant itself, or of a moderator.
    pub(super) fn set_mutes(&mut self, by: Changer, participant: ParticipantId, patch: &ParticipantPatch) {
        let Some(person) = self.people.get_mut(&participant) else { return };
        let moderator = match by {
            Changer::Itself => {
                if patch.audio_muted == Some(true) {
                    person.decided.asked_to_unmute = false;
                }
                if person.role >= Role::Moderator {
                    // A moderator may clear what another one has decided about it.
                    person.decided.muted_by.take_if(|_| patch.audio_muted == Some(false));
                    person.decided.video_stopped_by.take_if(|_| patch.video_muted == Some(false));
                }
                person.audio_muted = patch.audio_muted.unwrap_or(person.audio_muted);
                person.video_muted = patch.video_muted.unwrap_or(person.video_muted);
                return;
            }
            Changer::Moderator(moderator) => moderator,
        };
        let before = person.decided;
        let decided = &mut person.decided;
        if let Some(muted) = patch.audio_muted {
            decided.muted_by = muted.then(|| decided.muted_by.unwrap_or(moderator));
            decided.asked_to_unmute = !muted;
        }
        if let Some(stopped) = patch.video_muted {
            decided.video_stopped_by = stopped.then(|| decided.video_stopped_by.unwrap_or(moderator));
        }
        let told = |decided: &Decided| (decided.muted_by.is_some(), decided.video_stopped_by.is_some());
        let (audio, video) = told(decided);
        if told(&before) != (audio, video) {
            self.emit(|_| Event::Muted { participant, audio, video, by: moderator });
        }
    }

    /// Those who are kept out, with the time that is left.
    pub fn kept_out(&self, now: Timestamp) -> Vec<(Identity, Duration)> {
        self.kept_out.all(now).collect()
    }

    /// Keeps these out for so long, as a room did before a restart.
    pub fn keep_out(&mut self, now: Timestamp, those: &[(Identity, Duration)]) {
        for (who, left) in those {
            self.kept_out.add(*who, now + (*left).min(KEEP_OUT_MAX), now);
        }
    }

    /// Carries out a decision.
    ///
    /// # Errors
    /// [`ModerationError::NoParticipant`].
    pub fn decide(&mut self, now: Timestamp, by: Moderator, decision: Decision) -> Result<(), ModerationError> {
        self.now = now;
        match decision {
            Decision::Admit(participant) => {
                let waits = self.people.get(&participant).is_some_and(|person| person.waits);
                waits.then(|| self.let_in(participant)).ok_or(ModerationError::NoParticipant(participant))?;
            }
            Decision::AdmitAll => {
                let waiting: Vec<_> = self.waiting().map(|(id, _)| id).collect();
                waiting.into_iter().for_each(|participant| self.let_in(participant));
            }
            Decision::AskUnmute(participant) => self.ask_unmute(by, participant)?,
            Decision::MuteOthers => self.mute_others(by),
            Decision::Remove(participant, keep_out) => self.remove(participant, keep_out)?,
        }
        Ok(())
    }

    fn ask_unmute(&mut self, by: Moderator, participant: ParticipantId) -> Result<(), ModerationError> {
        let person = self.people.get(&participant).filter(|person| person.connected);
        person.ok_or(ModerationError::NoParticipant(participant))?;
        let patch = ParticipantPatch { audio_muted: Some(false), ..ParticipantPatch::default() };
        self.update(Changer::Moderator(by), participant, patch);
        let readers = Readers { participants: [participant].into(), moderators: false };
        self.effects.push_back(Effect::Private(readers, Event::AskedToUnmute { participant, by }));
        Ok(())
    }

    fn mute_others(&mut self, by: Moderator) {
        let spared = |id: ParticipantId, person: &Person| {
            by == Moderator::Participant(id) || person.role >= Role::Moderator || !person.connected
        };
        let others = self.people.iter().filter(|(id, person)| !spared(**id, person) && !person.sources.is_empty());
        let others: Vec<_> = others.map(|(id, _)| *id).collect();
        for participant in others {
            let patch = ParticipantPatch { audio_muted: Some(true), ..ParticipantPatch::default() };
            self.update(Changer::Moderator(by), participant, patch);
        }
    }

    fn remove(&mut self, participant: ParticipantId, keep_out: Duration) -> Result<(), ModerationError> {
        let there = self.people.get(&participant).filter(|person| person.connected || person.waits);
        let person = there.ok_or(ModerationError::NoParticipant(participant))?;
        if let Some(identity) = person.identity.filter(|_| !keep_out.is_zero()) {
            self.kept_out.add(identity, self.now + keep_out.min(KEEP_OUT_MAX), self.now);
        }
        self.left(participant, LeaveReason::Removed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_is_kept_out_for_longer_than_decided(
            decided in proptest::collection::vec((0_u64..8, 0_u64..100, 0_u64..100), 0..40),
            later in 0_u64..250,
        ) {
            let at = |seconds| Timestamp::default() + Duration::from_secs(seconds);
            let mut kept_out = KeptOut::default();
            let mut expected = BTreeMap::new();
            let mut now = 0;
            for (who, pause, time) in decided {
                now += pause;
                kept_out.add(Identity(who), at(now + time), at(now));
                expected.insert(who, now + time);
            }
            let end = now + later;
            for who in 0..8 {
                let left = expected.get(&who).and_then(|until| until.checked_sub(end)).filter(|left| *left > 0);
                prop_assert_eq!(kept_out.left(Identity(who), at(end)), left.map(Duration::from_secs));
            }
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let now = Timestamp::default();
        let mut kept_out = KeptOut::default();
        for n in 0..=KEPT_OUT_MAX as u64 {
            kept_out.add(Identity(n), now + Duration::from_secs(10 + n), now);
        }
        assert_eq!((kept_out.0.len(), kept_out.left(Identity(0), now)), (KEPT_OUT_MAX, None));
        assert_eq!(kept_out.left(Identity(1), now), Some(Duration::from_secs(11)));
    }
}
