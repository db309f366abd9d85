//! The recording of a composition.

use std::time::Duration;

use super::diary::Diary;
use super::file::{Folder, Part};
use super::sound::{self, Packet};
use crate::container::{Sample, TrackSpec};
use crate::link::output::{FileReport, FileTarget, Note, OutputSettings};
use crate::media::{AUDIO_RATE, EncodedPacket, FileFormat, VIDEO_CLOCK};
use crate::output::frames::{Frame, Frames, Unwrap};
use crate::output::{Desk, Failure, Target};
use crate::plan::StreamSpec;
use crate::room::document::OutputState;
use crate::time::Timestamp;

/// How often the disk is looked at.
const CHECK: Duration = Duration::from_secs(1);
/// A keyframe to cut at is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A file that another follows waits so long for the rest of its sound, in samples: half a second.
const SOUND_LATE: u64 = AUDIO_RATE as u64 / 2;

/// A composition and everyone's mix, in one file after another.
pub(in crate::output) struct Recording {
    desk: Desk,
    folder: Folder,
    video: Option<Video>,
    /// None once it has ended.
    sound: Option<sound::Track>,
    unwrap: Unwrap,
    diary: Diary,
    /// The file that grows.
    growing: Option<Open>,
    /// The one before it, which still lacks sound.
    closing: Option<Open>,
    epoch: Timestamp,
    checked: Option<Timestamp>,
    /// Of files that are complete.
    bytes: u64,
    duration: Duration,
    dropped: u64,
    /// Why it cannot go on.
    failure: Option<Failure>,
    /// For the bitrate: bytes at the last check.
    rate: Option<(Timestamp, u64)>,
}

struct Video {
    spec: StreamSpec,
    frames: Frames,
    /// When a keyframe to cut at was asked for.
    asked: Option<Timestamp>,
}

/// A file, and how its times count.
struct Open {
    part: Part,
    /// Ticks of the audio clock, and of the video clock, from the epoch to its beginning.
    start: (u64, u64),
    /// Where the sound goes to the next file, once there is one.
    until: Option<u64>,
    /// The track of the sound.
    sound: usize,
    /// Ticks of the audio clock at which what it holds ends.
    end: u64,
}

impl Open {
    fn lasts(&self) -> Duration {
        duration(self.end.saturating_sub(self.start.0))
    }

    fn video(&mut self, frame: Frame, length: u32) -> Result<(), Failure> {
        let Some(time) = frame.time.checked_sub(self.start.1) else { return Ok(()) };
        self.end = self.end.max((frame.time + u64::from(length)) * u64::from(AUDIO_RATE) / u64::from(VIDEO_CLOCK));
        self.part.push(Sample { track: 0, time, duration: length, keyframe: frame.keyframe, data: frame.data })
    }

    /// A packet that begins before the file does is left out.
    fn sound(&mut self, packet: Packet) -> Result<(), Failure> {
        let Some(time) = packet.time.checked_sub(self.start.0) else { return Ok(()) };
        self.end = self.end.max(packet.time + u64::from(packet.duration));
        let Packet { duration, data, .. } = packet;
        self.part.push(Sample { track: self.sound, time, duration, keyframe: true, data })
    }
}

/// Samples at 48 kHz as a duration.
const fn duration(samples: u64) -> Duration {
    Duration::from_micros(samples * 1_000_000 / AUDIO_RATE as u64)
}

impl Recording {
    /// Ready to record; the first file is made when there is something to put into it.
    ///
    /// # Errors
    /// Words that say what to change.
    pub(in crate::output) fn open(settings: OutputSettings, target: FileTarget, desk: &Desk) -> Result<Self, Failure> {
        let OutputSettings { room, output, epoch, streams, .. } = settings;
        let aac = target.format == FileFormat::Mp4 && !target.opus;
        let folder = Folder::open(target, room, output, epoch)?;
        let video = streams.into_iter().next().map(|spec| {
            let frames = Frames::new(spec.key.codec, epoch);
            Video { spec, frames, asked: None }
        });
        Ok(Self {
            desk: desk.clone(),
            folder,
            video,
            sound: Some(sound::Track::new(epoch, aac)?),
            unwrap: Unwrap::new(epoch, AUDIO_RATE),
            diary: Diary::default(),
            growing: None,
            closing: None,
            epoch,
            checked: None,
            bytes: 0,
            duration: Duration::ZERO,
            dropped: 0,
            failure: None,
            rate: None,
        })
    }

    /// Begins a file at this time: samples at 48 kHz, and where there is video its first frame.
    fn begin(&mut self, start: u64, first: Option<&Frame>) -> Result<(), Failure> {
        let mut tracks = Vec::new();
        if let (Some(video), Some(frame)) = (&self.video, first) {
            let track = TrackSpec::video(video.spec.key.codec, video.spec.size, &frame.data);
            tracks.push(track.map_err(|error| Failure(error.to_string()))?.named(video.spec.key.view.as_str()));
        }
        let sound = tracks.len();
        tracks.extend(self.sound.as_ref().map(sound::Track::spec));
        let video_start = first.map_or(0, |frame| frame.time);
        let at = self.epoch + duration(start);
        let part = self.folder.create(tracks, at, None, self.diary.open(at))?;
        self.tell(&part, false);
        let open = Open { part, start: (start, video_start), until: None, sound, end: start };
        if let Some(mut before) = self.growing.replace(open) {
            before.until = Some(start);
            if let Some(older) = self.closing.replace(before) {
                self.close(older, None)?;
            }
        }
        Ok(())
    }

    fn tell(&self, part: &Part, complete: bool) {
        self.desk.file(FileReport { name: part.name().to_owned(), part: part.number(), complete });
    }

    fn close(&mut self, mut open: Open, reason: Option<&Failure>) -> Result<(), Failure> {
        open.part.lasts(open.lasts());
        self.bytes += open.part.bytes();
        self.duration += open.lasts();
        self.dropped += open.part.unordered();
        let report = FileReport { name: open.part.name().to_owned(), part: open.part.number(), complete: true };
        open.part.close(self.epoch + duration(open.end), reason)?;
        self.desk.file(report);
        Ok(())
    }

    /// Puts sound where it belongs.
    fn put(&mut self, packets: Vec<Packet>) -> Result<(), Failure> {
        for packet in packets {
            let until = self.closing.as_ref().and_then(|closing| closing.until);
            match &mut self.closing {
                Some(closing) if until.is_some_and(|until| packet.time < until) => closing.sound(packet)?,
                closing => {
                    if let Some(complete) = closing.take() {
                        self.close(complete, None)?;
                    }
                    if self.video.is_none() && (self.growing.is_none() || self.is_due()) {
                        self.begin(packet.time, None)?;
                    }
                    if let Some(growing) = &mut self.growing {
                        growing.sound(packet)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Failure> {
        let start = frame.time * u64::from(AUDIO_RATE) / u64::from(VIDEO_CLOCK);
        if frame.keyframe && (self.growing.is_none() || self.is_due()) {
            self.begin(start, Some(&frame))?;
            if let Some(video) = &mut self.video {
                video.asked = None;
            }
            if let Some(sound) = &mut self.sound
                && !sound.has_begun()
            {
                let packets = sound.begin(start)?;
                self.put(packets)?;
            }
        }
        let length = self.video.as_ref().map_or(0, |video| VIDEO_CLOCK / video.spec.fps.max(1));
        match &mut self.growing {
            Some(growing) => growing.video(frame, length),
            None => Ok(()),
        }
    }

    /// Whether another file should begin.
    fn is_due(&self) -> bool {
        let target = self.folder.target();
        self.growing.as_ref().is_some_and(|open| {
            target.cut_after.is_some_and(|after| open.lasts() >= after)
                || target.cut_bytes.is_some_and(|bytes| open.part.bytes() >= bytes)
        })
    }

    fn ask(&mut self, now: Timestamp) {
        let due = self.is_due();
        let Some(video) = &mut self.video else { return };
        let cut = due && video.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN);
        if cut {
            video.asked = Some(now);
        }
        if video.frames.wants_keyframe(now) || cut {
            self.desk.want_keyframe(0);
        }
    }

    fn report(&mut self, now: Timestamp) {
        let open = || self.closing.iter().chain(&self.growing);
        let bytes = self.bytes + open().map(|open| open.part.bytes()).sum::<u64>();
        let lasts = self.duration + open().map(Open::lasts).sum::<Duration>();
        let late = self.sound.as_ref().map_or(0, sound::Track::late);
        let dropped = self.dropped + open().map(|open| open.part.unordered()).sum::<u64>() + late;
        let live = self.growing.is_some();
        let (since, before) = self.rate.unwrap_or((now, bytes));
        let millis = now.since(since).as_millis() as u64;
        let bitrate = (millis >= 2_000).then(|| (bytes - before.min(bytes)) * 8_000 / millis);
        if bitrate.is_some() || self.rate.is_none() {
            self.rate = Some((now, bytes));
        }
        self.desk.report(|report| {
            report.state = if live { OutputState::Live } else { OutputState::Starting };
            report.bytes = bytes;
            report.duration = lasts;
            report.dropped = dropped;
            report.bitrate = bitrate.unwrap_or(report.bitrate);
        });
    }
}

impl Recording {
    fn take_packet(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let frame = self.video.as_mut().and_then(|video| video.frames.push(packet, now));
        if let Some(frame) = frame {
            self.frame(frame)?;
        }
        self.ask(now);
        Ok(())
    }

    fn take_sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let Some(sound) = &mut self.sound else { return Ok(()) };
        let first = self.video.is_none() && !sound.has_begun();
        let time = self.unwrap.time(packet.timestamp, now);
        let mut packets = sound.push(packet, now)?;
        if first {
            packets.extend(sound.begin(time)?);
        }
        self.put(packets)
    }

    fn time_passes(&mut self, now: Timestamp) -> Result<(), Failure> {
        if let Some(sound) = &mut self.sound {
            let packets = sound.tick(now)?;
            self.put(packets)?;
        }
        let late = self.unwrap.ticks(now).saturating_sub(SOUND_LATE);
        if let Some(closing) = self.closing.take_if(|closing| closing.until.is_some_and(|until| until < late)) {
            self.close(closing, None)?;
        }
        if self.checked.is_none_or(|checked| now.since(checked) >= CHECK) {
            self.checked = Some(now);
            for open in self.closing.iter_mut().chain(&mut self.growing) {
                open.part.lasts(open.lasts());
                open.part.tick(now)?;
            }
            self.folder.check()?;
        }
        self.ask(now);
        self.report(now);
        Ok(())
    }

    /// Keeps the reason for the JSON.
    fn keep(&mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        if let Err(failure) = &outcome {
            self.failure.get_or_insert_with(|| failure.clone());
        }
        outcome
    }
}

impl Target for Recording {
    fn video(&mut self, _stream: u8, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let outcome = self.take_packet(packet, now);
        self.keep(outcome)
    }

    fn sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let outcome = self.take_sound(packet, now);
        self.keep(outcome)
    }

    fn note(&mut self, at: Timestamp, note: Note) -> Result<(), Failure> {
        self.diary.note(&note);
        if let Some(open) = &mut self.growing {
            open.part.pages().note(at, &note);
        }
        Ok(())
    }

    fn sound_lag(&mut self, lag: Duration) {
        self.video.iter_mut().for_each(|video| video.frames.set_sound_lag(lag));
    }

    fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        let outcome = self.time_passes(now);
        self.keep(outcome)
    }

    fn finish(&mut self, now: Timestamp) -> Result<(), Failure> {
        let reason = self.failure.clone();
        let end = self.growing.as_ref().map_or(0, |open| open.end);
        let mut outcome = Ok(());
        if let Some(sound) = self.sound.take() {
            // Up to now, if the picture has stood still.
            let until = end.max(self.unwrap.ticks(now).min(end + u64::from(AUDIO_RATE)));
            outcome = sound.finish(until).and_then(|packets| self.put(packets));
        }
        for open in [self.closing.take(), self.growing.take()].into_iter().flatten() {
            let closed = self.close(open, reason.as_ref());
            outcome = outcome.and(closed);
        }
        let (bytes, duration, dropped) = (self.bytes, self.duration, self.dropped);
        self.desk.report(|report| {
            (report.bytes, report.duration, report.dropped, report.bitrate) = (bytes, duration, dropped, 0);
        });
        outcome
    }
}
