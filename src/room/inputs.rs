//! The inputs of a room: files and streams that take part as participants.
//!
//! Owns: [`Inputs`], with the state and the restarts of each. Does not know: networks, files, processes; a source is
//! only a text here. In: [`InputEvent`]; out: effects that start and stop processes. Each input is a participant that
//! only sends, with a name and a tile, also while its source is reconnected. Removing that participant ends the input.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document::{Event, InputDocument, InputState, LeaveReason, Role, SkipReason, TierChoice};
use super::view_request::ViewPatch;
use super::{Admission, Admitted, Effect, Refusal, Room};
use crate::id::{InputId, ParticipantId};
use crate::media::{Size, SourceKind};
use crate::time::Timestamp;

/// A process that has run for less than this has died early.
const SETTLED: Duration = Duration::from_secs(5);
/// Back-off after the first early death; it doubles with each further one.
const REST: Duration = Duration::from_millis(250);
/// Early deaths in succession after which the input fails.
const EARLY_DEATHS_MAX: u32 = 6;
/// Shortest interval between events that differ only in numbers.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Ended inputs that remain in the document.
const OVER_MAX: usize = 16;

/// A request for an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputWish {
    /// The URL of the source without secrets.
    pub url: String,
    /// The name on its tile.
    pub name: String,
    /// Play again after the end.
    pub repeat: bool,
    /// An encoder pushes it, and has to reconnect by itself.
    pub pushed: bool,
}

/// An event of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum InputEvent {
    /// A report of its process.
    Report(InputReport),
    /// The input has ended; with a reason if it has failed.
    Ended(Option<String>),
    /// Its process is lost, for this reason.
    Lost(String),
    /// A request to end it.
    Stop,
}

/// The state of an input, as its process reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InputReport {
    /// Its state.
    pub state: InputState,
    /// Why it was last interrupted, without secrets.
    pub reason: Option<String>,
    /// Bitrate of the payload sent to the room, in bits per second.
    pub bitrate: u64,
    /// Number of reconnections.
    pub reconnects: u32,
    /// Picture size of the source.
    pub size: Option<Size>,
    /// Pictures skipped: too many per second, too late, or the encoder was busy.
    pub pictures_skipped: u64,
    /// How often late media has delayed the rest.
    pub late: u64,
    /// Units of media that were skipped because they cannot be used.
    pub skipped: BTreeMap<SkipReason, u64>,
    /// How often timestamps jumped and playback continued at once.
    pub timestamp_jumps: u64,
    /// Messages dropped because the link to the server was full.
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
    /// Reconnections of earlier processes, including restarts.
    reconnects: u32,
    reported: Timestamp,
}

/// The life cycle of an input.
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
            skipped: self.report.skipped.clone(),
            timestamp_jumps: self.report.timestamp_jumps,
        }
    }
}

impl Inputs {
    pub(super) fn documents(&self) -> Vec<InputDocument> {
        self.all.iter().map(|(id, input)| input.document(*id)).collect()
    }

    /// When a lost process is to be restarted.
    pub(super) fn timeout(&self) -> Option<Timestamp> {
        let rests = |input: &Injected| if let Life::Resting { until } = input.life { Some(until) } else { None };
        self.all.values().filter_map(rests).min()
    }

    /// The input of this participant.
    fn of(&self, participant: ParticipantId) -> Option<InputId> {
        let is = |input: &Injected| input.participant == participant && input.life != Life::Over;
        self.all.iter().find(|(_, input)| is(input)).map(|(id, _)| *id)
    }

    fn running(&self) -> usize {
        self.all.values().filter(|input| input.life != Life::Over).count()
    }

    /// Removes the oldest ended inputs.
    fn forget(&mut self) {
        let over: Vec<InputId> =
            self.all.iter().filter(|(_, input)| input.life == Life::Over).map(|(id, _)| *id).collect();
        for id in over.iter().take(over.len().saturating_sub(OVER_MAX)) {
            self.all.remove(id);
        }
    }
}

impl Room {
    /// Adds an input as a participant that only sends. Permitted in a locked room, since its caller may unlock the
    /// room.
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
            identity: None,
            name: wish.name.clone(),
            role: Role::Participant,
            sends: vec![SourceKind::Camera, SourceKind::Microphone],
            receives_audio: None,
            receives_video: None,
            tier: TierChoice::Auto,
            view: ViewPatch::default(),
            // An encoder that pushes is a person with other software.
            bot: !wish.pushed,
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
            reported: now,
        };
        self.inputs.all.insert(id, input);
        self.inputs.forget();
        self.connected(participant);
        self.effects.push_back(Effect::StartInput(id));
        self.tell_input(id);
        Ok((id, admitted))
    }

    pub(super) fn input_event(&mut self, now: Timestamp, id: InputId, event: InputEvent) {
        let Some(input) = self.inputs.all.get_mut(&id).filter(|input| input.life != Life::Over) else { return };
        match event {
            InputEvent::Report(report) => {
                let known = |report: &InputReport| (report.state, report.reason.clone(), report.size);
                let changed = known(&report) != known(&input.report);
                input.report = report;
                if changed || now.since(input.reported) >= REPORT_INTERVAL {
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
        self.left(participant, why);
    }

    fn close_input(&mut self, id: InputId, state: InputState, reason: Option<String>) -> Option<ParticipantId> {
        let input = self.inputs.all.get_mut(&id)?;
        input.life = Life::Over;
        input.report = InputReport { state, reason, bitrate: 0, ..input.report.clone() };
        let participant = input.participant;
        self.tell_input(id);
        Some(participant)
    }

    /// Ends the input of a participant that leaves.
    pub(super) fn input_left(&mut self, participant: ParticipantId) {
        if let Some(id) = self.inputs.of(participant) {
            self.effects.push_back(Effect::StopInput(id));
            self.close_input(id, InputState::Finished, None);
        }
    }

    /// Restarts processes whose back-off has ended.
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

    /// The room ends: stops all inputs.
    pub(super) fn stop_inputs(&mut self) {
        let running = self.inputs.all.iter().filter(|(_, input)| input.life != Life::Over);
        let ids: Vec<InputId> = running.map(|(id, _)| *id).collect();
        for id in ids {
            self.input_event(self.now, id, InputEvent::Stop);
        }
    }

    fn tell_input(&mut self, id: InputId) {
        let now = self.now;
        let Some(input) = self.inputs.all.get_mut(&id) else { return };
        input.reported = now;
        let input = input.document(id);
        self.emit(|_| Event::Input { input });
    }
}
