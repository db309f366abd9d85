//! A running input: messages in, packets out, and the thread between.
//!
//! Owns: one source from the first attempt to its end: opening, playing, trying again, beginning again; the reports.
//! Does not know: where messages come from: a socket ([`super::process`]) or a test. In by [`Input::handle`], out through
//! the [`Outbox`].
//!
//! The thread that plays never waits for the network: a source is opened on a thread of its own, which hands it over.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::camera::{Camera, CameraOptions};
use super::microphone::Microphone;
use super::open::{OpenError, Opened, Opener};
use super::outbox::Outbox;
use super::play::{Outcome, Play};
use super::push::Encoder;
use super::retry::Retry;
use crate::codec::{H264Encoder, intake};
use crate::link::input::{FromInput, Hidden, InputSettings, ToInput};
use crate::room::document::InputState;
use crate::room::inputs::InputReport;
use crate::time::{self, Timestamp, now};

/// From one report to the next, also when idle: the edge takes an input that is silent for much longer for hung.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// A source that is not open after so long is given up; its thread may still wait.
const OPENING: Duration = Duration::from_secs(20);
/// The bitrate is that of so many reports.
const RATE_REPORTS: u32 = 4;

/// An input in this process. Dropping it ends its thread.
pub struct Input {
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    /// An encoder that waits to be let in.
    encoder: Arc<Mutex<Option<Encoder>>>,
    thread: Option<JoinHandle<()>>,
}

impl Input {
    /// An input that waits for its first message, [`ToInput::Configure`] or [`ToInput::Receive`], and speaks through
    /// `outbox`.
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, inbox: Arc::default(), encoder: Arc::default(), thread: None }
    }

    /// Does what a message says.
    pub fn handle(&mut self, message: ToInput) {
        match message {
            ToInput::Receive => {
                let (outbox, encoder) = (self.outbox.clone(), self.encoder.clone());
                let receive = move || receive(&outbox, &encoder);
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
                let begin = move || begin(settings, encoder, &outbox, inbox);
                let play = thread::Builder::new().name("play".into()).spawn(begin);
                self.thread = Some(play.expect("an input can have a thread"));
            }
            ToInput::Configure(_) => tracing::warn!("configured twice: the first settings stay"),
            ToInput::Keyframe => self.inbox.change(|inbox| inbox.keyframe = true),
            ToInput::Stop => self.inbox.change(|inbox| inbox.stop = true),
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.inbox.change(|inbox| inbox.stop = true);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ended = thread.join();
        }
    }
}

/// What the playing thread is told, latest values only.
#[derive(Default)]
struct Inbox {
    state: Mutex<InboxState>,
    woken: Condvar,
}

#[derive(Default)]
struct InboxState {
    keyframe: bool,
    stop: bool,
    /// A source has news.
    stirred: bool,
    /// What became of the newest attempt to open the source, by its number.
    opened: Option<(u64, Result<Opened, OpenError>)>,
}

impl Inbox {
    fn change(&self, change: impl FnOnce(&mut InboxState)) {
        change(&mut self.state.lock());
        self.woken.notify_one();
    }
}

/// Hears what an encoder wants, and tells it.
fn receive(outbox: &Outbox, encoder: &Mutex<Option<Encoder>>) {
    // Now, because it takes a while, and the edge expects reports once it has heard what the encoder wants.
    let received = match intake::confine(intake::Way::Fed) {
        Ok(_) => Encoder::receive(),
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

fn begin(settings: InputSettings, encoder: Option<Encoder>, outbox: &Arc<Outbox>, inbox: Arc<Inbox>) {
    let options = CameraOptions {
        most: settings.picture,
        fps: settings.fps,
        h264: if settings.openh264 { H264Encoder::OpenH264 } else { H264Encoder::X264 },
        threads: settings.threads.max(1),
    };
    let repeat = settings.repeat;
    tracing::info!(room = %settings.room, "an input begins");
    match Opener::new(settings, encoder) {
        Ok((opener, missing)) => {
            outbox.push(FromInput::Ready { missing });
            Player::new(Arc::new(opener), repeat, options, outbox.clone(), inbox).run();
        }
        Err(error) => outbox.push(FromInput::Ended { reason: Some(error.reason) }),
    }
    outbox.close();
}

/// Where the source stands.
enum Stage {
    /// It is being opened since then.
    Opening(Timestamp),
    /// It plays.
    Playing(Box<Play>),
    /// It is tried again then.
    Waiting(Timestamp),
}

/// What to do next.
enum Next {
    /// Nothing before that time, unless something happens.
    Wait(Option<Timestamp>),
    /// Look again at once.
    Again,
    /// All is over, well or not.
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
    attempt: u64,
    /// The source once more, opened while its first time comes to an end.
    following: Option<Opened>,
    /// That is being opened.
    follows: bool,
    retry: Retry,
    reason: Option<String>,
    reconnects: u32,
    late: u64,
    /// Payload bytes at the last reports, the oldest first.
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
            following: None,
            follows: false,
            retry: Retry::default(),
            reason: None,
            reconnects: 0,
            late: 0,
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
                inbox.stirred = false;
                (std::mem::take(&mut inbox.keyframe), inbox.stop, inbox.opened.take())
            };
            if keyframe {
                self.camera.want_keyframe();
            }
            let next = match opened {
                _ if stop => Next::End(None),
                Some((attempt, opened)) if attempt == self.attempt => self.opened(opened, at),
                _ => self.step(at),
            };
            let wake = match next {
                Next::Again => continue,
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
        while !(inbox.stirred || inbox.stop || inbox.keyframe || inbox.opened.is_some()) {
            let left = until.since(now());
            if left.is_zero() || self.inbox.woken.wait_for(&mut inbox, left).timed_out() {
                return;
            }
        }
    }

    /// Opens the source on a thread of its own.
    fn open(&mut self) -> Result<(), String> {
        self.attempt += 1;
        let (attempt, opener, inbox) = (self.attempt, self.opener.clone(), self.inbox.clone());
        let waking = inbox.clone();
        let body = move || {
            let opened = opener.open(move || waking.change(|inbox| inbox.stirred = true));
            inbox.change(|inbox| {
                // An attempt that was given up may come back late: it must not take a newer one's place.
                if inbox.opened.as_ref().is_none_or(|(newest, _)| *newest < attempt) {
                    inbox.opened = Some((attempt, opened));
                }
            });
        };
        thread::Builder::new().name("open".into()).spawn(body).map(drop).map_err(|error| error.to_string())
    }

    fn opened(&mut self, opened: Result<Opened, OpenError>, at: Timestamp) -> Next {
        if std::mem::take(&mut self.follows) {
            match opened {
                Ok(opened) => self.following = Some(opened),
                Err(error) => tracing::debug!(reason = error.reason, "a source cannot be opened once more"),
            }
            return Next::Again;
        }
        match opened {
            Ok(opened) => {
                self.play(opened, None, at);
                Next::Again
            }
            Err(OpenError { reason, lasting: true }) => Next::End(Some(reason)),
            Err(OpenError { reason, lasting: false }) => self.broke(reason, at),
        }
    }

    fn play(&mut self, opened: Opened, after: Option<Timestamp>, at: Timestamp) {
        self.stage = Stage::Playing(Box::new(Play::new(opened, after, at)));
    }

    fn step(&mut self, at: Timestamp) -> Next {
        match &mut self.stage {
            Stage::Waiting(until) if *until > at => Next::Wait(Some(*until)),
            Stage::Waiting(_) => {
                self.stage = Stage::Opening(at);
                match self.open() {
                    Ok(()) => Next::Wait(None),
                    Err(reason) => self.broke(reason, at),
                }
            }
            Stage::Opening(since) if at.since(*since) < OPENING => Next::Wait(Some(*since + OPENING)),
            Stage::Opening(_) => self.broke(format!("no answer within {} s", OPENING.as_secs()), at),
            Stage::Playing(play) => {
                let outcome = play.step(&mut self.camera, &mut self.microphone, at);
                self.played(outcome, at)
            }
        }
    }

    fn played(&mut self, outcome: Outcome, at: Timestamp) -> Next {
        let Stage::Playing(play) = &self.stage else { return Next::Again };
        if play.has_begun() {
            self.retry.succeeded(at);
        }
        match outcome {
            Outcome::Next(wake) => {
                let ends = play.has_ended() && play.is_finite();
                if self.repeat && ends && self.following.is_none() && !self.follows {
                    self.follows = self.open().is_ok();
                }
                Next::Wait(wake)
            }
            Outcome::Over(end) => {
                self.late += play.late();
                let finite = play.is_finite();
                match self.following.take() {
                    Some(following) => self.play(following, Some(end), at),
                    // It is being opened already; it begins a little later.
                    None if std::mem::take(&mut self.follows) => self.stage = Stage::Opening(at),
                    None if finite && self.repeat => self.stage = Stage::Waiting(at),
                    None if finite || self.opener.is_pushed() => return Next::End(None),
                    None => return self.broke("the source has ended".into(), at),
                }
                Next::Again
            }
            Outcome::Failed(reason) => {
                let begun = play.has_begun();
                self.late += play.late();
                if self.opener.is_pushed() || !begun && self.opener.is_file() {
                    return Next::End(Some(reason));
                }
                self.broke(reason, at)
            }
        }
    }

    /// Waits, and then begins anew.
    fn broke(&mut self, reason: String, at: Timestamp) -> Next {
        let again = self.retry.failed(at);
        tracing::info!(reason, wait = ?again.since(at), "a source broke off");
        self.reason = Some(reason);
        self.reconnects += 1;
        (self.following, self.follows) = (None, false);
        // Whatever is still being opened comes too late.
        self.attempt += 1;
        self.stage = Stage::Waiting(again);
        Next::Wait(Some(again))
    }

    fn report(&mut self, at: Timestamp, state: Option<InputState>) {
        let (bytes, link_dropped) = self.outbox.counts();
        self.bytes.push((at, bytes));
        if self.bytes.len() > RATE_REPORTS as usize + 1 {
            self.bytes.remove(0);
        }
        let (since, before) = self.bytes[0];
        let elapsed = at.since(since).as_millis().max(1) as u64;
        let (stage, late) = match &self.stage {
            Stage::Opening(_) | Stage::Waiting(_) if self.reconnects == 0 => (InputState::Starting, 0),
            Stage::Opening(_) | Stage::Waiting(_) => (InputState::Reconnecting, 0),
            Stage::Playing(play) if play.has_begun() => (InputState::Live, play.late()),
            Stage::Playing(play) => (InputState::Starting, play.late()),
        };
        self.outbox.push(FromInput::Report(InputReport {
            state: state.unwrap_or(stage),
            reason: self.reason.clone(),
            bitrate: (bytes - before) * 8_000 / elapsed,
            reconnects: self.reconnects,
            size: self.camera.size(),
            pictures_skipped: self.camera.skipped(),
            late: self.late + late,
            link_dropped,
            cpu_ms: time::process_cpu().as_millis() as u64,
        }));
    }
}
