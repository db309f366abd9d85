//! Playing a source: what came in is sent on when it is due.
//!
//! Owns: one open source and the line of its times. Does not know: why it ended or what follows. In: the time, whenever
//! there is news or something is due. Out: pictures to the [`Camera`], sound to the [`Microphone`].

use std::time::Duration;

use super::camera::Camera;
use super::microphone::Microphone;
use super::open::Opened;
use super::playout::Playout;
use super::ticks::{TICK, Ticks};
use crate::codec::intake::{Shot, Stretch, Track};
use crate::media::Kind;
use crate::time::Timestamp;

/// A track that is known but has sent nothing is waited for so long before the other begins alone.
const TOGETHER: Duration = Duration::from_millis(700);
/// Sound is made into ticks this long before it is due.
const AHEAD: Duration = Duration::from_millis(60);
/// How long the last picture of a source is shown before what follows without a gap.
const LAST_PICTURE: Duration = Duration::from_millis(40);
/// A source from which nothing comes for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);

/// What has become of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on; nothing is due before that time, unless there is news.
    Next(Option<Timestamp>),
    /// It came to its end, which everything that is sent reaches at this time.
    Over(Timestamp),
    /// It broke off.
    Failed(String),
}

/// One source being played.
pub(super) struct Play {
    source: Opened,
    playout: Playout,
    ticks: Ticks,
    shot: Option<Shot>,
    stretch: Option<Stretch>,
    /// When something first waited to be played.
    first: Option<Timestamp>,
    /// Where the source before ended, to go on there.
    after: Option<Timestamp>,
    /// When something last came.
    heard: Timestamp,
    /// When everything sent so far is over.
    end: Timestamp,
    finite: Option<bool>,
}

impl Play {
    /// Plays a source, without a gap after the one that ended then.
    pub(super) fn new(source: Opened, after: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            playout: Playout::new(source.live),
            source,
            ticks: Ticks::default(),
            shot: None,
            stretch: None,
            first: None,
            after,
            heard: now,
            end: now,
            finite: None,
        }
    }

    /// Whether anything has been sent.
    pub(super) const fn has_begun(&self) -> bool {
        self.playout.has_begun()
    }

    /// Nothing more comes in.
    pub(super) fn has_ended(&self) -> bool {
        self.has_begun() && self.source.intake.has_ended()
    }

    /// Whether it has an end by itself.
    pub(super) fn is_finite(&self) -> bool {
        self.finite.unwrap_or_else(|| self.source.intake.is_finite())
    }

    /// How often the rest was delayed because something came late.
    pub(super) const fn late(&self) -> u64 {
        self.playout.late()
    }

    /// Sends what is due.
    pub(super) fn step(&mut self, camera: &mut Camera, microphone: &mut Microphone, now: Timestamp) -> Outcome {
        if let Some(reason) = self.source.intake.failed() {
            return Outcome::Failed(reason);
        }
        self.take(now);
        if !self.playout.has_begun() && !self.begin(now) {
            return self.idle(now, self.first.map(|first| first + TOGETHER));
        }
        loop {
            self.fill(now);
            if self.leap(now) {
                continue;
            }
            let picture = self.shot.as_ref().map(|shot| self.playout.due(shot.pts)).filter(|due| *due <= now);
            if let Some(due) = picture
                && let Some(shot) = self.shot.take()
            {
                camera.show(&shot, due, now);
                self.end = self.end.max(due + LAST_PICTURE);
            }
            let sound = self.ticks.due().is_some_and(|due| due <= now).then(|| self.ticks.pop()).flatten();
            if let Some(tick) = &sound {
                microphone.say(tick, now);
                self.end = self.end.max(tick.due + TICK);
            }
            if picture.is_none() && sound.is_none() {
                break;
            }
        }
        if self.source.intake.is_over() && self.shot.is_none() && self.stretch.is_none() {
            self.ticks.finish();
            if self.ticks.due().is_none() {
                return Outcome::Over(self.end);
            }
        }
        let stretch = self.stretch.as_ref().map(|stretch| self.playout.due(stretch.pts) - AHEAD);
        let shot = self.shot.as_ref().map(|shot| self.playout.due(shot.pts));
        self.idle(now, [shot, stretch, self.whole_tick()].into_iter().flatten().min())
    }

    /// When the next whole tick is due.
    fn whole_tick(&self) -> Option<Timestamp> {
        self.ticks.due().filter(|_| !self.ticks.is_hungry())
    }

    fn idle(&self, now: Timestamp, wake: Option<Timestamp>) -> Outcome {
        let patient = self.source.patient && !self.has_begun();
        if wake.is_none() && !patient && now.since(self.heard) > SILENCE {
            return Outcome::Failed(format!("nothing came for {} s", SILENCE.as_secs()));
        }
        Outcome::Next(wake)
    }

    /// Takes the next picture and the next piece of sound, where there is none yet.
    fn take(&mut self, now: Timestamp) {
        if self.finite.is_none() && self.source.intake.is_settled() {
            self.finite = Some(self.source.intake.is_finite());
        }
        if self.shot.is_none() {
            self.shot = self.source.intake.picture();
            if let Some(shot) = &self.shot {
                self.heard = now;
                if self.playout.has_begun() {
                    self.playout.arrived(shot.pts, shot.arrival);
                }
            }
        }
        if self.stretch.is_none() {
            self.stretch = self.source.intake.sound();
            if let Some(stretch) = &self.stretch {
                self.heard = now;
                if self.playout.has_begun() {
                    self.playout.arrived(stretch.pts, stretch.arrival);
                }
            }
        }
        if self.first.is_none() && (self.shot.is_some() || self.stretch.is_some()) {
            self.first = Some(now);
        }
    }

    /// Begins when all tracks have something, or one has waited long enough for the other.
    fn begin(&mut self, now: Timestamp) -> bool {
        let Some(first) = self.first else { return false };
        if !(self.is_complete() && self.source.intake.is_settled()) && now.since(first) < TOGETHER {
            return false;
        }
        let times = [self.shot.as_ref().map(|shot| shot.pts), self.stretch.as_ref().map(|stretch| stretch.pts)];
        let Some(earliest) = times.into_iter().flatten().min() else { return false };
        self.playout.begin(earliest, self.after.take(), now);
        true
    }

    /// Every track that goes on has something waiting.
    fn is_complete(&self) -> bool {
        let waits = |kind, there: bool| there || self.source.intake.track(kind) != Track::Open;
        waits(Kind::Video, self.shot.is_some()) && waits(Kind::Audio, self.stretch.is_some())
    }

    /// Makes ticks of sound that is due soon.
    fn fill(&mut self, now: Timestamp) {
        self.take(now);
        while self.ticks.is_hungry() {
            let Some(stretch) = self.stretch.take() else { return };
            let due = self.playout.due(stretch.pts);
            if due.since(now) > AHEAD {
                self.stretch = Some(stretch);
                return;
            }
            self.ticks.push(due, &stretch.samples);
            self.take(now);
        }
    }

    /// Begins anew where all that waits is due in a far future.
    fn leap(&mut self, now: Timestamp) -> bool {
        let times = [self.shot.as_ref().map(|shot| shot.pts), self.stretch.as_ref().map(|stretch| stretch.pts)];
        let earliest = times.into_iter().flatten().min();
        self.is_complete() && earliest.is_some_and(|earliest| self.playout.jumped(earliest, now))
    }
}
