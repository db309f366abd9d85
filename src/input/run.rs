//! A running input: the state machine of one source, and its thread.
//!
//! Owns: opening, playback, reconnects, repetition, and the reports. Does not know: where messages come from, a socket
//! ([`super::process`]) or a test. In: [`Input::handle`]. Out: the [`Outbox`].
//!
//! The playback thread never waits for the network: each attempt to open the source has a thread of its own.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::camera::{Camera, CameraOptions};
use super::microphone::Microphone;
use super::open::{OpenError, Opened, Opener};
use super::outbox::Outbox;
use super::play::{Outcome, Playback};
use super::push::Encoder;
use super::retry::Retry;
use crate::codec::{H264Encoder, intake};
use crate::link::input::{FromInput, Hidden, InputSettings, ToInput};
use crate::room::document::InputState;
use crate::room::inputs::InputReport;
use crate::time::{self, Timestamp, now};

/// Report interval, also when idle: the edge kills an input as hung if reports stay away.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Timeout of an attempt to open the source. Its thread may continue to wait; its result is ignored.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of report intervals over which the bitrate is averaged.
const BITRATE_REPORTS: u32 = 4;

/// An input in this process. Dropping it ends its thread.
pub struct Input {
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    /// An encoder that waits for [`ToInput::Configure`] or [`ToInput::Refuse`].
    encoder: Arc<Mutex<Option<Encoder>>>,
    thread: Option<JoinHandle<()>>,
}

impl Input {
    /// An idle input that sends through `outbox`. Its first message is [`ToInput::Configure`] or [`ToInput::Receive`].
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, inbox: Arc::default(), encoder: Arc::default(), thread: None }
    }

    /// Executes a message from the edge.
    pub fn handle(&mut self, message: ToInput) {
        match message {
            ToInput::Receive { received } => {
                let (outbox, encoder) = (self.outbox.clone(), self.encoder.clone());
                let receive = move || receive(&received, &outbox, &encoder);
                thread::Builder::new().name("receive".into()).spawn(receive).expect("an input can have a thread");
            }
            ToInput::Refuse { why } => {
                if let Some(encoder) = self.encoder.lock().take() {
                    encoder.refuse(&why);
                }
                self.outbox.push(FromInput::Ended { reason: Some(why) });
                self.outbox.close();
            }
            ToInput::Configure(settings) if self.thread.is_none() => {
                let (outbox, inbox) = (self.outbox.clone(), self.inbox.clone());
                let encoder = self.encoder.lock().take();
                let start = move || start(settings, encoder, &outbox, inbox);
                let play = thread::Builder::new().name("play".into()).spawn(start);
                self.thread = Some(play.expect("an input can have a thread"));
            }
            ToInput::Configure(_) => tracing::warn!("input configured twice: second settings ignored"),
            ToInput::Keyframe => self.inbox.change(|inbox| inbox.keyframe = true),
            ToInput::Stop => self.inbox.change(|inbox| inbox.stop = true),
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.inbox.change(|inbox| inbox.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic was already logged.
            let _ended = thread.join();
        }
    }
}

/// Requests for the playback thread.
#[derive(Default)]
struct Inbox {
    state: Mutex<InboxState>,
    changed: Condvar,
}

#[derive(Default)]
struct InboxState {
    keyframe: bool,
    stop: bool,
    /// The source has media or a state change.
    source_ready: bool,
    /// Result of the newest finished attempt to open the source, with the attempt's number.
    opened: Option<(u64, Result<Opened, OpenError>)>,
}

impl Inbox {
    fn change(&self, change: impl FnOnce(&mut InboxState)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }
}

/// Waits for an encoder's request to publish, and reports it.
fn receive(received: &[u8], outbox: &Outbox, encoder: &Mutex<Option<Encoder>>) {
    // Confined now, because it takes a while, and the edge expects reports after `Publishing`.
    let received = match intake::confine(intake::Protocol::Pushed) {
        Ok(_) => Encoder::receive(received),
        Err(error) => Err(error.to_string()),
    };
    match received {
        Ok((received, app, key)) => {
            *encoder.lock() = Some(received);
            outbox.push(FromInput::Publishing { app, key: Hidden(key.expose().to_owned()) });
        }
        Err(reason) => {
            outbox.push(FromInput::Ended { reason: Some(reason) });
            outbox.close();
        }
    }
}

fn start(settings: InputSettings, encoder: Option<Encoder>, outbox: &Arc<Outbox>, inbox: Arc<Inbox>) {
    let options = CameraOptions {
        max_size: settings.picture,
        fps: settings.fps,
        h264: if settings.openh264 { H264Encoder::OpenH264 } else { H264Encoder::X264 },
        threads: settings.threads.max(1),
    };
    let repeat = settings.repeat;
    tracing::info!(room = %settings.room, "input starting");
    match Opener::new(settings, encoder) {
        Ok((opener, missing)) => {
            outbox.push(FromInput::Ready { missing });
            Player::new(Arc::new(opener), repeat, options, outbox.clone(), inbox).run();
        }
        Err(error) => outbox.push(FromInput::Ended { reason: Some(error.reason) }),
    }
    outbox.close();
}

/// State of the source.
enum Stage {
    /// Being opened since this time.
    Opening(Timestamp),
    /// Playing.
    Playing(Box<Playback>),
    /// Waiting until this time for the next attempt.
    Waiting(Timestamp),
}

/// What the thread does next.
enum Next {
    /// Wait for a request or media, at most until this time.
    Wait(Option<Timestamp>),
    /// Run another step at once.
    Continue,
    /// End the input: finished (None) or failed.
    End(Option<String>),
}

struct Player {
    opener: Arc<Opener>,
    repeat: bool,
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    camera: Camera,
    microphone: Microphone,
    stage: Stage,
    /// Number of the newest attempt to open the source.
    attempt: u64,
    /// The source opened again for a gapless repetition.
    next_source: Option<Opened>,
    /// `next_source` is being opened.
    opening_next: bool,
    retry: Retry,
    reason: Option<String>,
    reconnects: u32,
    late: u64,
    jumps: u64,
    /// Payload bytes at the last reports, oldest first.
    bytes: Vec<(Timestamp, u64)>,
}

impl Player {
    fn new(opener: Arc<Opener>, repeat: bool, options: CameraOptions, outbox: Arc<Outbox>, inbox: Arc<Inbox>) -> Self {
        let now = now();
        Self {
            opener,
            repeat,
            camera: Camera::new(options, outbox.clone(), now),
            microphone: Microphone::new(outbox.clone()),
            outbox,
            inbox,
            stage: Stage::Waiting(now),
            attempt: 0,
            next_source: None,
            opening_next: false,
            retry: Retry::default(),
            reason: None,
            reconnects: 0,
            late: 0,
            jumps: 0,
            bytes: Vec::new(),
        }
    }

    fn run(mut self) {
        let mut report = now();
        loop {
            let at = now();
            if at >= report {
                report = at + REPORT_INTERVAL;
                self.report(at, None);
            }
            let (keyframe, stop, opened) = {
                let mut inbox = self.inbox.state.lock();
                inbox.source_ready = false;
                (std::mem::take(&mut inbox.keyframe), inbox.stop, inbox.opened.take())
            };
            if keyframe {
                self.camera.request_keyframe();
            }
            let next = match opened {
                _ if stop => Next::End(None),
                Some((attempt, opened)) if attempt == self.attempt => self.opened(opened, at),
                _ => self.step(at),
            };
            let wake = match next {
                Next::Continue => continue,
                Next::Wait(wake) => wake.map_or(report, |wake| wake.min(report)),
                Next::End(reason) => {
                    self.reason = reason.clone().or(self.reason);
                    let failed = reason.is_some();
                    self.report(at, Some(if failed { InputState::Failed } else { InputState::Finished }));
                    self.outbox.push(FromInput::Ended { reason });
                    return;
                }
            };
            self.wait(wake);
        }
    }

    fn wait(&self, until: Timestamp) {
        let mut inbox = self.inbox.state.lock();
        while !(inbox.source_ready || inbox.stop || inbox.keyframe || inbox.opened.is_some()) {
            let left = until.since(now());
            if left.is_zero() || self.inbox.changed.wait_for(&mut inbox, left).timed_out() {
                return;
            }
        }
    }

    /// Starts an attempt to open the source, on a separate thread.
    fn open(&mut self) -> Result<(), String> {
        self.attempt += 1;
        let (attempt, opener, inbox) = (self.attempt, self.opener.clone(), self.inbox.clone());
        let waking = inbox.clone();
        let body = move || {
            let opened = opener.open(move || waking.change(|inbox| inbox.source_ready = true));
            inbox.change(|inbox| {
                // An abandoned attempt may finish late: it must not replace the result of a newer one.
                if inbox.opened.as_ref().is_none_or(|(newest, _)| *newest < attempt) {
                    inbox.opened = Some((attempt, opened));
                }
            });
        };
        thread::Builder::new().name("open".into()).spawn(body).map(drop).map_err(|error| error.to_string())
    }

    fn opened(&mut self, opened: Result<Opened, OpenError>, at: Timestamp) -> Next {
        if std::mem::take(&mut self.opening_next) {
            match opened {
                Ok(opened) => self.next_source = Some(opened),
                Err(error) => tracing::debug!(reason = error.reason, "source cannot be opened for repetition"),
            }
            return Next::Continue;
        }
        match opened {
            Ok(opened) => {
                self.play(opened, None, at);
                Next::Continue
            }
            Err(OpenError { reason, permanent: true }) => Next::End(Some(reason)),
            Err(OpenError { reason, permanent: false }) => self.reconnect(reason, at),
        }
    }

    fn play(&mut self, opened: Opened, after: Option<Timestamp>, at: Timestamp) {
        self.stage = Stage::Playing(Box::new(Playback::new(opened, after, at)));
    }

    fn step(&mut self, at: Timestamp) -> Next {
        match &mut self.stage {
            Stage::Waiting(until) if *until > at => Next::Wait(Some(*until)),
            Stage::Waiting(_) => {
                self.stage = Stage::Opening(at);
                match self.open() {
                    Ok(()) => Next::Wait(None),
                    Err(reason) => self.reconnect(reason, at),
                }
            }
            Stage::Opening(since) if at.since(*since) < OPEN_TIMEOUT => Next::Wait(Some(*since + OPEN_TIMEOUT)),
            Stage::Opening(_) => self.reconnect(format!("no answer within {} s", OPEN_TIMEOUT.as_secs()), at),
            Stage::Playing(play) => {
                let outcome = play.step(&mut self.camera, &mut self.microphone, at);
                self.played(outcome, at)
            }
        }
    }

    fn played(&mut self, outcome: Outcome, at: Timestamp) -> Next {
        let Stage::Playing(play) = &self.stage else { return Next::Continue };
        if play.has_begun() {
            self.retry.succeeded(at);
        }
        match outcome {
            Outcome::Continue(wake) => {
                let ends = play.has_ended() && play.is_finite();
                if self.repeat && ends && self.next_source.is_none() && !self.opening_next {
                    self.opening_next = self.open().is_ok();
                }
                Next::Wait(wake)
            }
            Outcome::Ended(end) => {
                let finite = play.is_finite();
                self.close(at);
                match self.next_source.take() {
                    Some(next_source) => self.play(next_source, Some(end), at),
                    // The repetition is being opened already and starts a little late.
                    None if std::mem::take(&mut self.opening_next) => self.stage = Stage::Opening(at),
                    None if finite && self.repeat => {}
                    None if finite || self.opener.is_pushed() => return Next::End(None),
                    None => return self.reconnect("the source has ended".into(), at),
                }
                Next::Continue
            }
            Outcome::Failed(reason) => {
                let begun = play.has_begun();
                self.close(at);
                if self.opener.is_pushed() || !begun && self.opener.is_file() {
                    return Next::End(Some(reason));
                }
                self.reconnect(reason, at)
            }
        }
    }

    /// Closes the source, and keeps its counts.
    fn close(&mut self, at: Timestamp) {
        if let Stage::Playing(play) = std::mem::replace(&mut self.stage, Stage::Waiting(at)) {
            self.late += play.late();
            self.jumps += play.jumps();
        }
    }

    /// Schedules the next attempt.
    fn reconnect(&mut self, reason: String, at: Timestamp) -> Next {
        let again = self.retry.failed(at);
        tracing::info!(reason, wait = ?again.since(at), "input source failed, reconnecting");
        self.reason = Some(reason);
        self.reconnects += 1;
        (self.next_source, self.opening_next) = (None, false);
        // Invalidates an attempt that is still running.
        self.attempt += 1;
        self.stage = Stage::Waiting(again);
        Next::Wait(Some(again))
    }

    /// Why a source is stalled.
    fn stall_reason(&self, silent: Duration) -> String {
        let received = format!("no media received for {} s", silent.as_secs());
        match self.opener.skipped().unsupported() {
            Some(why) => format!("{received}: {why}"),
            None => received,
        }
    }

    fn report(&mut self, at: Timestamp, state: Option<InputState>) {
        let (bytes, link_dropped) = self.outbox.counts();
        self.bytes.push((at, bytes));
        if self.bytes.len() > BITRATE_REPORTS as usize + 1 {
            self.bytes.remove(0);
        }
        let (since, before) = self.bytes[0];
        let elapsed = at.since(since).as_millis().max(1) as u64;
        let (stage, late, jumps) = match &self.stage {
            Stage::Opening(_) | Stage::Waiting(_) if self.reconnects == 0 => (InputState::Starting, 0, 0),
            Stage::Opening(_) | Stage::Waiting(_) => (InputState::Reconnecting, 0, 0),
            Stage::Playing(play) => {
                let stalled = play.stalled(at);
                if let Some(silent) = stalled {
                    self.reason = Some(self.stall_reason(silent));
                }
                let state = match stalled {
                    Some(_) => InputState::Stalled,
                    None if play.has_begun() => InputState::Live,
                    None => InputState::Starting,
                };
                (state, play.late(), play.jumps())
            }
        };
        // The unsupported track of a source that goes on, rather than an earlier interruption.
        let goes_on = state.is_none() && stage != InputState::Stalled;
        let unsupported = if goes_on { self.opener.skipped().unsupported() } else { None };
        self.outbox.push(FromInput::Report(InputReport {
            state: state.unwrap_or(stage),
            reason: unsupported.or_else(|| self.reason.clone()),
            bitrate: (bytes - before) * 8_000 / elapsed,
            reconnects: self.reconnects,
            size: self.camera.size(),
            pictures_skipped: self.camera.skipped(),
            late: self.late + late,
            skipped: self.opener.skipped().counts(),
            timestamp_jumps: self.jumps + jumps,
            link_dropped,
            cpu_ms: time::process_cpu().as_millis() as u64,
        }));
    }
}
