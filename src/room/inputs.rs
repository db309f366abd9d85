//! The inputs of a room: which sources from elsewhere take part in it, how they do, and when one whose process died is
//! started again.
//!
//! Owns: [`Inputs`]. Does not know: networks, files, processes; where an input comes from is text for people here.
//! Each is a participant that only sends, by a name and with a tile, as long as it lasts: also while it is connected to
//! anew. Whoever puts that participant out ends the input.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document::{Event, InputDocument, InputState, LeaveReason, Role, TierChoice};
use super::{Admission, Admitted, Effect, Refusal, Room};
use crate::id::{InputId, ParticipantId};
use crate::media::{Size, SourceKind};
use crate::time::Timestamp;

/// A process that lived for less has died young.
const SETTLED: Duration = Duration::from_secs(5);
/// The rest after the first early death; it doubles with each one that follows.
const REST: Duration = Duration::from_millis(250);
/// So many early deaths in a row, and it is given up.
const EARLY_DEATHS_MAX: u32 = 6;
/// A change in numbers alone is told this often.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Inputs that are over and still listed.
const OVER_MAX: usize = 16;

/// A source that somebody wants in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputWish {
    /// Where it is from, for people to read: without secrets.
    pub url: String,
    /// Shown on its tile.
    pub name: String,
    /// Begin again at its end.
    pub repeat: bool,
    /// An encoder pushes it: it is for the encoder to come back when it broke off.
    pub pushed: bool,
}

/// What happens to an input.
#[derive(Debug, Clone, PartialEq)]
pub enum InputEvent {
    /// How it does.
    Report(InputReport),
    /// It is over; with what went wrong where it did not just come to its end.
    Ended(Option<String>),
    /// Its process is gone, though the input is not over.
    Lost(String),
    /// Somebody wants it to end.
    Stop,
}

/// How an input does, as its process says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InputReport {
    /// What it is doing.
    pub state: InputState,
    /// What was wrong when it last broke off, without secrets.
    pub reason: Option<String>,
    /// Payload sent to the room lately, in bits per second.
    pub bitrate: u64,
    /// How often it was connected to anew.
    pub reconnects: u32,
    /// Size of the picture as it comes.
    pub size: Option<Size>,
    /// Pictures left out: too many a second, too late, or the encoder was busy.
    pub pictures_skipped: u64,
    /// Times that media came too late and the rest was delayed for it.
    pub late: u64,
    /// Messages dropped because the link to the edge was full.
    pub link_dropped: u64,
    /// CPU time of the process in milliseconds.
    pub cpu_ms: u64,
}

/// The inputs of a room.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    all: BTreeMap<InputId, Injected>,
    last: u32,
}

#[derive(Debug)]
struct Injected {
    wish: InputWish,
    participant: ParticipantId,
    life: Life,
    early_deaths: u32,
    report: InputReport,
    /// Of the processes before the one that runs, their deaths included.
    reconnects: u32,
    told: Timestamp,
}

/// Where an input is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running { since: Timestamp },
    Resting { until: Timestamp },
    Over,
}

impl Injected {
    fn document(&self, id: InputId) -> InputDocument {
        InputDocument {
            id,
            url: self.wish.url.clone(),
            name: self.wish.name.clone(),
            repeat: self.wish.repeat,
            state: self.report.state,
            reason: self.report.reason.clone(),
            participant: self.participant,
            bitrate: self.report.bitrate,
            reconnects: self.reconnects + self.report.reconnects,
            size: self.report.size,
        }
    }
}

impl Inputs {
    pub(super) fn documents(&self) -> Vec<InputDocument> {
        self.all.iter().map(|(id, input)| input.document(*id)).collect()
    }

    /// When one whose process died is to be started again.
    pub(super) fn timeout(&self) -> Option<Timestamp> {
        let rests = |input: &Injected| if let Life::Resting { until } = input.life { Some(until) } else { None };
        self.all.values().filter_map(rests).min()
    }

    /// The input that this participant is.
    fn of(&self, participant: ParticipantId) -> Option<InputId> {
        let is = |input: &Injected| input.participant == participant && input.life != Life::Over;
        self.all.iter().find(|(_, input)| is(input)).map(|(id, _)| *id)
    }

    fn running(&self) -> usize {
        self.all.values().filter(|input| input.life != Life::Over).count()
    }

    /// Forgets the oldest of those that are over.
    fn forget(&mut self) {
        let over: Vec<InputId> =
            self.all.iter().filter(|(_, input)| input.life == Life::Over).map(|(id, _)| *id).collect();
        for id in over.iter().take(over.len().saturating_sub(OVER_MAX)) {
            self.all.remove(id);
        }
    }
}

impl Room {
    /// Takes a source in, as a participant that only sends. Also into a locked room: whoever may do this could unlock it.
    ///
    /// # Errors
    /// [`Refusal::Ended`], [`Refusal::FullOfInputs`], [`Refusal::Full`].
    pub fn add_input(&mut self, now: Timestamp, wish: InputWish) -> Result<(InputId, Admitted), Refusal> {
        self.now = now;
        let most = self.settings.max_inputs;
        if self.inputs.running() >= most {
            return Err(Refusal::FullOfInputs(most));
        }
        let who = Admission {
            name: wish.name.clone(),
            role: Role::Participant,
            sends: vec![SourceKind::Camera, SourceKind::Microphone],
            receives_audio: None,
            receives_video: None,
            tier: TierChoice::Auto,
        };
        let admitted = self.seat(who)?;
        let participant = admitted.participant;
        self.inputs.last += 1;
        let id = InputId(self.inputs.last);
        let input = Injected {
            wish,
            participant,
            life: Life::Running { since: now },
            early_deaths: 0,
            report: InputReport::default(),
            reconnects: 0,
            told: now,
        };
        self.inputs.all.insert(id, input);
        self.inputs.forget();
        self.connected(participant);
        self.effects.push_back(Effect::StartInput(id));
        self.tell_input(id);
        Ok((id, admitted))
    }

    pub(super) fn input_news(&mut self, now: Timestamp, id: InputId, news: InputEvent) {
        let Some(input) = self.inputs.all.get_mut(&id).filter(|input| input.life != Life::Over) else { return };
        match news {
            InputEvent::Report(report) => {
                let known = |report: &InputReport| (report.state, report.reason.clone(), report.size);
                let changed = known(&report) != known(&input.report);
                input.report = report;
                if changed || now.since(input.told) >= TOLD_EVERY {
                    self.tell_input(id);
                }
            }
            InputEvent::Ended(failure) => {
                let state = if failure.is_some() { InputState::Failed } else { InputState::Finished };
                self.input_over(id, state, failure);
            }
            InputEvent::Lost(why) => self.input_lost(now, id, &why),
            InputEvent::Stop => {
                self.effects.push_back(Effect::StopInput(id));
                self.input_over(id, InputState::Finished, None);
            }
        }
    }

    fn input_lost(&mut self, now: Timestamp, id: InputId, why: &str) {
        let Some(input) = self.inputs.all.get_mut(&id) else { return };
        let Life::Running { since } = input.life else { return };
        if input.wish.pushed {
            return self.input_over(id, InputState::Failed, Some(format!("its process was lost: {why}")));
        }
        input.early_deaths = if now.since(since) < SETTLED { input.early_deaths + 1 } else { 0 };
        if input.early_deaths >= EARLY_DEATHS_MAX {
            let reason = Some(format!("its process was lost again and again: {why}"));
            return self.input_over(id, InputState::Failed, reason);
        }
        input.reconnects += input.report.reconnects + 1;
        input.report = InputReport {
            state: InputState::Reconnecting,
            reason: Some(format!("its process was lost and is started again: {why}")),
            size: input.report.size,
            ..InputReport::default()
        };
        let rest = REST * 2u32.pow(input.early_deaths.saturating_sub(1));
        input.life = Life::Resting { until: now + if input.early_deaths == 0 { Duration::ZERO } else { rest } };
        self.tell_input(id);
        self.input_timeout(now);
    }

    fn input_over(&mut self, id: InputId, state: InputState, reason: Option<String>) {
        let Some(participant) = self.close_input(id, state, reason) else { return };
        let why = if state == InputState::Failed { LeaveReason::Lost } else { LeaveReason::Left };
        self.left(self.now, participant, why);
    }

    fn close_input(&mut self, id: InputId, state: InputState, reason: Option<String>) -> Option<ParticipantId> {
        let input = self.inputs.all.get_mut(&id)?;
        input.life = Life::Over;
        input.report = InputReport { state, reason, bitrate: 0, ..input.report.clone() };
        let participant = input.participant;
        self.tell_input(id);
        Some(participant)
    }

    /// A participant leaves: if it is an input, that is over.
    pub(super) fn input_left(&mut self, participant: ParticipantId) {
        if let Some(id) = self.inputs.of(participant) {
            self.effects.push_back(Effect::StopInput(id));
            self.close_input(id, InputState::Finished, None);
        }
    }

    /// Starts those whose rest is over.
    pub(super) fn input_timeout(&mut self, now: Timestamp) {
        for (id, input) in &mut self.inputs.all {
            if let Life::Resting { until } = input.life
                && now >= until
            {
                input.life = Life::Running { since: now };
                self.effects.push_back(Effect::StartInput(*id));
            }
        }
    }

    /// The room is over, and with it whatever was taken in.
    pub(super) fn stop_inputs(&mut self) {
        let running = self.inputs.all.iter().filter(|(_, input)| input.life != Life::Over);
        let ids: Vec<InputId> = running.map(|(id, _)| *id).collect();
        for id in ids {
            self.input_news(self.now, id, InputEvent::Stop);
        }
    }

    fn tell_input(&mut self, id: InputId) {
        let now = self.now;
        let Some(input) = self.inputs.all.get_mut(&id) else { return };
        input.told = now;
        let input = input.document(id);
        self.emit(|_| Event::Input { input });
    }
}
