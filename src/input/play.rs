//! Playback of an open source: sends media when it is due.
//!
//! Owns: one open source and its [`Playout`]. Does not know: reconnects and repetition. In: the time, whenever media
//! arrives or is due. Out: pictures to the [`Camera`], audio to the [`Microphone`].

use std::time::Duration;

use super::camera::Camera;
use super::index;
use super::microphone::Microphone;
use super::open::Opened;
use super::playout::Playout;
use super::ticks::{TICK, Ticks};
use super::timeline::{self, Next, Timeline};
use crate::codec::intake::{Shot, Stretch, Track};
use crate::media::Kind;
use crate::time::Timestamp;

/// Longest time for which playback waits for the first media of every known track.
const START_TIMEOUT: Duration = Duration::from_millis(700);
/// Audio is cut into ticks this long before it is due.
const AUDIO_LEAD: Duration = Duration::from_millis(60);
/// Duration of a source's last picture, before a repetition without a gap.
const LAST_FRAME_DURATION: Duration = Duration::from_millis(40);
/// A picture that is shown longer does not keep the next one waiting.
const SHOWN_MAX: Duration = Duration::from_secs(60);
/// A source that sends no media for this time is stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);
/// A source that sends no media for this time has failed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Call again at this time, or when media arrives.
    Continue(Option<Timestamp>),
    /// The source ended regularly; all its media has been played at this time.
    Ended(Timestamp),
    /// The source failed.
    Failed(String),
}

/// Playback of one open source.
pub(super) struct Playback {
    source: Opened,
    timeline: Timeline,
    playout: Playout,
    ticks: Ticks,
    shot: Option<Shot>,
    stretch: Option<Stretch>,
    /// How long the last picture is shown, if the source says so.
    shown: Duration,
    /// When the first media arrived.
    first_media: Option<Timestamp>,
    /// End of the source played before, for a repetition without a gap.
    previous_end: Option<Timestamp>,
    /// When video and audio last arrived; the start of playback before that.
    last_media: [Timestamp; 2],
    /// End of all media sent so far.
    end: Timestamp,
    finite: Option<bool>,
}

impl Playback {
    /// Playback of a source, without a gap after one that ended at `previous_end`.
    pub(super) fn new(source: Opened, previous_end: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            timeline: Timeline::new(source.live),
            playout: Playout::new(source.live),
            source,
            ticks: Ticks::default(),
            shot: None,
            stretch: None,
            shown: Duration::ZERO,
            first_media: None,
            previous_end,
            last_media: [now; 2],
            end: now,
            finite: None,
        }
    }

    /// Whether anything has been sent.
    pub(super) const fn has_begun(&self) -> bool {
        self.playout.has_begun()
    }

    /// Whether the source has delivered all its media.
    pub(super) fn has_ended(&self) -> bool {
        self.has_begun() && self.source.intake.has_ended()
    }

    /// Whether the source has a finite duration.
    pub(super) fn is_finite(&self) -> bool {
        self.finite.unwrap_or_else(|| self.source.intake.is_finite())
    }

    /// How often the playout delay grew because media was late.
    pub(super) const fn late(&self) -> u64 {
        self.playout.late()
    }

    /// How often timestamps jumped: before the decoder for protocols in Rust and MPEG-TS, else after it. A picture that
    /// the decoder holds back at a jump is late and looks like another jump, which does not count.
    pub(super) fn jumps(&self) -> u64 {
        self.timeline.jumps().max(self.source.intake.jumps())
    }

    /// For how long the source has delivered nothing, if that is a stall: neither its end nor a wait for a caller.
    pub(super) fn stalled(&self, now: Timestamp) -> Option<Duration> {
        let silent = now.since(self.last_media[0].max(self.last_media[1]));
        let waits = self.source.may_be_silent && !self.has_begun();
        let playing = self.shot.is_some() || self.stretch.is_some();
        (silent > STALL_TIMEOUT && !waits && !playing && !self.source.intake.has_ended()).then_some(silent)
    }

    /// Sends all media that is due.
    pub(super) fn step(&mut self, camera: &mut Camera, microphone: &mut Microphone, now: Timestamp) -> Outcome {
        if let Some(reason) = self.source.intake.failed() {
            return Outcome::Failed(reason);
        }
        self.take(now);
        if !self.playout.has_begun() && !self.begin(now) {
            return self.idle(now, self.first_media.map(|first_media| first_media + START_TIMEOUT));
        }
        loop {
            self.fill(now);
            if self.close_gap(now) {
                continue;
            }
            let picture = self.shot.as_ref().map(|shot| self.playout.due(shot.pts)).filter(|due| *due <= now);
            if let Some(due) = picture
                && let Some(shot) = self.shot.take()
            {
                camera.send(&shot, due, now);
                self.shown = shot.duration.unwrap_or_default();
                self.end = self.end.max(due + LAST_FRAME_DURATION);
            }
            let sound = self.ticks.due().is_some_and(|due| due <= now).then(|| self.ticks.pop()).flatten();
            if let Some(tick) = &sound {
                microphone.send(tick, now);
                self.end = self.end.max(tick.due + TICK);
            }
            if picture.is_none() && sound.is_none() {
                break;
            }
        }
        if self.source.intake.is_over() && self.shot.is_none() && self.stretch.is_none() {
            self.ticks.finish();
            if self.ticks.due().is_none() {
                return Outcome::Ended(self.end);
            }
        }
        if self.stalled(now).is_none() {
            camera.repeat(now);
        }
        // Samples that the ticks do not need yet are no reason to wake: the next tick is.
        let stretch = self.stretch.as_ref().filter(|_| self.ticks.needs_samples());
        let stretch = stretch.map(|stretch| self.playout.due(stretch.pts) - AUDIO_LEAD);
        let shot = self.shot.as_ref().map(|shot| self.playout.due(shot.pts));
        let repeat = camera.repeat_at().filter(|at| *at > now);
        self.idle(now, [shot, stretch, self.next_complete_tick(), repeat].into_iter().flatten().min())
    }

    /// Due time of the next complete tick.
    fn next_complete_tick(&self) -> Option<Timestamp> {
        self.ticks.due().filter(|_| !self.ticks.needs_samples())
    }

    fn idle(&self, now: Timestamp, wake: Option<Timestamp>) -> Outcome {
        if self.stalled(now).is_some_and(|silent| silent > IDLE_TIMEOUT) {
            return Outcome::Failed(format!("no media received for {} s", IDLE_TIMEOUT.as_secs()));
        }
        Outcome::Continue(wake)
    }

    /// Takes the next picture and the next audio samples from the intake, unless one is already held.
    fn take(&mut self, now: Timestamp) {
        if self.finite.is_none() && self.source.intake.is_settled() {
            self.finite = Some(self.source.intake.is_finite());
        }
        if self.shot.is_none() {
            self.shot = self
                .source
                .intake
                .picture()
                .map(|shot| Shot { pts: self.place(Kind::Video, shot.pts, shot.arrival, now), ..shot });
        }
        if self.stretch.is_none() {
            self.stretch = self
                .source
                .intake
                .sound()
                .map(|stretch| Stretch { pts: self.place(Kind::Audio, stretch.pts, stretch.arrival, now), ..stretch });
        }
        if self.first_media.is_none() && (self.shot.is_some() || self.stretch.is_some()) {
            self.first_media = Some(now);
        }
    }

    /// The position of media that has been taken.
    fn place(&mut self, kind: Kind, pts: Duration, arrival: Timestamp, now: Timestamp) -> Duration {
        self.last_media[index(kind)] = now;
        let position = self.timeline.place(kind, pts.as_micros() as i64, arrival, self.playout.playing(now));
        if self.playout.has_begun() {
            self.playout.arrived(position, arrival);
        }
        position
    }

    /// Starts when every track has media, or after [`START_TIMEOUT`].
    fn begin(&mut self, now: Timestamp) -> bool {
        let Some(first_media) = self.first_media else { return false };
        if !(self.is_complete() && self.source.intake.is_settled()) && now.since(first_media) < START_TIMEOUT {
            return false;
        }
        let times = [self.shot.as_ref().map(|shot| shot.pts), self.stretch.as_ref().map(|stretch| stretch.pts)];
        let Some(earliest) = times.into_iter().flatten().min() else { return false };
        self.playout.begin(earliest, self.previous_end.take(), now);
        true
    }

    /// Whether every open track has media held.
    fn is_complete(&self) -> bool {
        let waits = |kind, there: bool| there || self.source.intake.track(kind) != Track::Open;
        waits(Kind::Video, self.shot.is_some()) && waits(Kind::Audio, self.stretch.is_some())
    }

    /// Cuts audio that is due soon into ticks.
    fn fill(&mut self, now: Timestamp) {
        self.take(now);
        while self.ticks.needs_samples() {
            let Some(stretch) = self.stretch.take() else { return };
            let due = self.playout.due(stretch.pts);
            if due.since(now) > AUDIO_LEAD {
                self.stretch = Some(stretch);
                return;
            }
            self.ticks.push(due, &stretch.samples);
            self.take(now);
        }
    }

    /// Closes a gap before the next media that is too long to wait for.
    fn close_gap(&mut self, now: Timestamp) -> bool {
        let held = [self.shot.as_ref().map(|shot| shot.pts), self.stretch.as_ref().map(|stretch| stretch.pts)];
        let next = [Kind::Video, Kind::Audio].map(|kind| match held[index(kind)] {
            Some(pts) => {
                let shown = if kind == Kind::Video { self.shown } else { Duration::ZERO };
                Next::Held {
                    due: self.playout.due(pts),
                    usual: self.timeline.usual_step(kind).max(shown.min(SHOWN_MAX)),
                }
            }
            None if self.source.intake.track(kind) == Track::Open => Next::Awaited(self.last_media[index(kind)]),
            None => Next::None,
        });
        let Some(gap) = timeline::gap(next, now) else { return false };
        self.timeline.close(&gap);
        let [video, audio] = gap.moves;
        if let Some(shot) = self.shot.as_mut().filter(|_| video) {
            shot.pts = shot.pts.saturating_sub(gap.by);
        }
        if let Some(stretch) = self.stretch.as_mut().filter(|_| audio) {
            stretch.pts = stretch.pts.saturating_sub(gap.by);
        }
        true
    }
}
