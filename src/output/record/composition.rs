//! The recording of a composition.
//!
//! Owns: [`Recording`]: when files begin and end. Does not know: containers, file names. In: packets of one video
//! stream and of the audio mix, and captions. Out: [`OutputFile`]s.

use std::time::Duration;

use super::audio::{self, Packet};
use super::events::RoomState;
use super::file::{Folder, OutputFile};
use crate::container::{Sample, TrackCodec, TrackSpec, supports};
use crate::link::output::{FileReport, FileTarget, Note, OutputSettings};
use crate::media::{AUDIO_RATE, EncodedPacket, FileFormat, VIDEO_CLOCK};
use crate::output::captions::{CaptionLines, ShownCaptions};
use crate::output::frames::{Frame, FrameAssembler, TimestampUnwrapper};
use crate::output::{Failure, Notifier, Target};
use crate::plan::StreamSpec;
use crate::room::document::OutputState;
use crate::time::Timestamp;

/// Interval of disk checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which the keyframe request for the next file is repeated.
const KEYFRAME_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which a file whose successor has begun waits for its last audio, in samples: half a second.
const AUDIO_LATENESS: u64 = AUDIO_RATE as u64 / 2;

/// The target that records a composition and the audio mix, in one file after another.
pub(in crate::output) struct Recording {
    notifier: Notifier,
    folder: Folder,
    video: Option<Video>,
    /// None once it has ended.
    sound: Option<audio::AudioTrack>,
    unwrapper: TimestampUnwrapper,
    captions: CaptionLines,
    room_state: RoomState,
    current: Option<OpenFile>,
    /// The file before `current`, which waits for its last audio.
    previous: Option<OpenFile>,
    epoch: Timestamp,
    checked: Option<Timestamp>,
    /// Bytes of completed files.
    bytes: u64,
    duration: Duration,
    dropped: u64,
    /// The first failure, for the sidecar.
    failure: Option<Failure>,
    /// Time and bytes at the start of the bitrate window.
    rate: Option<(Timestamp, u64)>,
}

struct Video {
    spec: StreamSpec,
    frames: FrameAssembler,
    /// Time of the pending keyframe request for the next file.
    asked: Option<Timestamp>,
}

/// A file and the zero of its times.
struct OpenFile {
    part: OutputFile,
    /// Start since the epoch, in ticks of the audio clock and of the video clock.
    start: (u64, u64),
    /// Start of the next file in audio ticks, if there is one: later audio belongs to it.
    until: Option<u64>,
    /// Index of the audio track.
    sound: usize,
    /// Index of the captions, if the format has them.
    text: Option<usize>,
    /// End of the media in audio ticks since the epoch.
    end: u64,
}

impl OpenFile {
    fn lasts(&self) -> Duration {
        duration(self.end.saturating_sub(self.start.0))
    }

    fn video(&mut self, frame: Frame, length: u32) -> Result<(), Failure> {
        let Some(time) = frame.time.checked_sub(self.start.1) else { return Ok(()) };
        self.end = self.end.max((frame.time + u64::from(length)) * u64::from(AUDIO_RATE) / u64::from(VIDEO_CLOCK));
        self.part.push(Sample { track: 0, time, duration: length, keyframe: frame.keyframe, data: frame.data })
    }

    /// Adds an audio packet; one before the start of the file is dropped.
    fn sound(&mut self, packet: Packet) -> Result<(), Failure> {
        let Some(time) = packet.time.checked_sub(self.start.0) else { return Ok(()) };
        self.end = self.end.max(packet.time + u64::from(packet.duration));
        let Packet { duration, data, .. } = packet;
        self.part.push(Sample { track: self.sound, time, duration, keyframe: true, data })
    }

    /// Shows captions from the later of their time and the start of the file.
    fn captions(&mut self, shown: &ShownCaptions, unwrapper: &TimestampUnwrapper) -> Result<(), Failure> {
        let Some(track) = self.text else { return Ok(()) };
        let since_start = |at| unwrapper.ticks(at).saturating_sub(self.start.0);
        let (time, until) = (since_start(shown.from), since_start(shown.until));
        let Some(duration) = until.checked_sub(time).and_then(|ticks| u32::try_from(ticks).ok()) else { return Ok(()) };
        let data = shown.text.clone().into();
        self.part.push(Sample { track, time, duration, keyframe: true, data })
    }
}

/// Converts samples at 48 kHz to a duration.
const fn duration(samples: u64) -> Duration {
    Duration::from_micros(samples * 1_000_000 / AUDIO_RATE as u64)
}

impl Recording {
    /// Prepares the recording; the first file is created with the first samples.
    ///
    /// # Errors
    /// A text that names the fix.
    pub(in crate::output) fn open(
        settings: OutputSettings,
        target: FileTarget,
        notifier: &Notifier,
    ) -> Result<Self, Failure> {
        let OutputSettings { room, output, epoch, streams, .. } = settings;
        let aac = target.format == FileFormat::Mp4 && !target.opus;
        let folder = Folder::open(target, room, output, epoch)?;
        let video = streams.into_iter().next().map(|spec| {
            let frames = FrameAssembler::new(spec.key.codec, epoch);
            Video { spec, frames, asked: None }
        });
        Ok(Self {
            notifier: notifier.clone(),
            folder,
            video,
            sound: Some(audio::AudioTrack::new(epoch, aac)?),
            unwrapper: TimestampUnwrapper::new(epoch, AUDIO_RATE),
            captions: CaptionLines::default(),
            room_state: RoomState::default(),
            current: None,
            previous: None,
            epoch,
            checked: None,
            bytes: 0,
            duration: Duration::ZERO,
            dropped: 0,
            failure: None,
            rate: None,
        })
    }

    /// Begins a file at `start` (samples at 48 kHz), with its first frame if there is video.
    fn begin(&mut self, start: u64, first: Option<&Frame>) -> Result<(), Failure> {
        let mut tracks = Vec::new();
        if let (Some(video), Some(frame)) = (&self.video, first) {
            let track = TrackSpec::video(video.spec.key.codec, video.spec.size, &frame.data);
            tracks.push(track.map_err(|error| Failure(error.to_string()))?.named(video.spec.key.view.as_str()));
        }
        let sound = tracks.len();
        tracks.extend(self.sound.as_ref().map(audio::AudioTrack::spec));
        let video = self.video.as_ref().filter(|_| supports(self.folder.target().format, TrackCodec::Text));
        let text = video.map(|video| {
            tracks.push(TrackSpec::text(video.spec.size).named("Captions"));
            tracks.len() - 1
        });
        let video_start = first.map_or(0, |frame| frame.time);
        let at = self.epoch + duration(start);
        let part = self.folder.create(tracks, at, None, self.room_state.start_log(at))?;
        self.report_file(&part, false);
        let mut open = OpenFile { part, start: (start, video_start), until: None, sound, text, end: start };
        if let Some(shown) = self.captions.shown() {
            open.captions(&shown, &self.unwrapper)?;
        }
        if let Some(mut before) = self.current.replace(open) {
            before.until = Some(start);
            if let Some(older) = self.previous.replace(before) {
                self.close(older, None)?;
            }
        }
        Ok(())
    }

    fn report_file(&self, part: &OutputFile, complete: bool) {
        self.notifier.report_file(FileReport { name: part.name().to_owned(), part: part.number(), complete });
    }

    fn close(&mut self, mut open: OpenFile, reason: Option<&Failure>) -> Result<(), Failure> {
        open.part.set_duration(open.lasts());
        self.bytes += open.part.bytes();
        self.duration += open.lasts();
        self.dropped += open.part.unordered();
        let report = FileReport { name: open.part.name().to_owned(), part: open.part.number(), complete: true };
        open.part.close(self.epoch + duration(open.end), reason)?;
        self.notifier.report_file(report);
        Ok(())
    }

    /// Adds audio to the file that covers its time.
    fn put(&mut self, packets: Vec<Packet>) -> Result<(), Failure> {
        for packet in packets {
            let until = self.previous.as_ref().and_then(|previous| previous.until);
            match &mut self.previous {
                Some(previous) if until.is_some_and(|until| packet.time < until) => previous.sound(packet)?,
                previous => {
                    if let Some(complete) = previous.take() {
                        self.close(complete, None)?;
                    }
                    if self.video.is_none() && (self.current.is_none() || self.is_due()) {
                        self.begin(packet.time, None)?;
                    }
                    if let Some(current) = &mut self.current {
                        current.sound(packet)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Failure> {
        let start = frame.time * u64::from(AUDIO_RATE) / u64::from(VIDEO_CLOCK);
        if frame.keyframe && (self.current.is_none() || self.is_due()) {
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
        match &mut self.current {
            Some(current) => current.video(frame, length),
            None => Ok(()),
        }
    }

    /// Whether the current file has reached its maximum duration or size.
    fn is_due(&self) -> bool {
        let target = self.folder.target();
        self.current.as_ref().is_some_and(|open| {
            target.cut_after.is_some_and(|after| open.lasts() >= after)
                || target.cut_bytes.is_some_and(|bytes| open.part.bytes() >= bytes)
        })
    }

    fn request_keyframes(&mut self, now: Timestamp) {
        let due = self.is_due();
        let Some(video) = &mut self.video else { return };
        let cut = due && video.asked.is_none_or(|asked| now.since(asked) >= KEYFRAME_RETRY_INTERVAL);
        if cut {
            video.asked = Some(now);
        }
        if video.frames.take_keyframe_request(now) || cut {
            self.notifier.request_keyframe(0);
        }
    }

    fn report(&mut self, now: Timestamp) {
        let open = || self.previous.iter().chain(&self.current);
        let bytes = self.bytes + open().map(|open| open.part.bytes()).sum::<u64>();
        let lasts = self.duration + open().map(OpenFile::lasts).sum::<Duration>();
        let late = self.sound.as_ref().map_or(0, audio::AudioTrack::late);
        let dropped = self.dropped + open().map(|open| open.part.unordered()).sum::<u64>() + late;
        let live = self.current.is_some();
        let (since, before) = self.rate.unwrap_or((now, bytes));
        let millis = now.since(since).as_millis() as u64;
        let bitrate = (millis >= 2_000).then(|| (bytes - before.min(bytes)) * 8_000 / millis);
        if bitrate.is_some() || self.rate.is_none() {
            self.rate = Some((now, bytes));
        }
        self.notifier.report(|report| {
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
        self.request_keyframes(now);
        Ok(())
    }

    fn take_sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let Some(sound) = &mut self.sound else { return Ok(()) };
        let first = self.video.is_none() && !sound.has_begun();
        let time = self.unwrapper.time(packet.timestamp, now);
        let mut packets = sound.push(packet, now)?;
        if first {
            packets.extend(sound.begin(time)?);
        }
        self.put(packets)
    }

    fn advance(&mut self, now: Timestamp) -> Result<(), Failure> {
        if let Some(sound) = &mut self.sound {
            let packets = sound.tick(now)?;
            self.put(packets)?;
        }
        let changes = self.captions.advance(now);
        self.show_captions(&changes)?;
        let late = self.unwrapper.ticks(now).saturating_sub(AUDIO_LATENESS);
        if let Some(previous) = self.previous.take_if(|previous| previous.until.is_some_and(|until| until < late)) {
            self.close(previous, None)?;
        }
        if self.checked.is_none_or(|checked| now.since(checked) >= CHECK_INTERVAL) {
            self.checked = Some(now);
            for open in self.previous.iter_mut().chain(&mut self.current) {
                open.part.set_duration(open.lasts());
                open.part.tick(now)?;
            }
            self.folder.check()?;
        }
        self.request_keyframes(now);
        self.report(now);
        Ok(())
    }

    fn show_captions(&mut self, changes: &[ShownCaptions]) -> Result<(), Failure> {
        let Some(current) = &mut self.current else { return Ok(()) };
        changes.iter().try_for_each(|shown| current.captions(shown, &self.unwrapper))
    }

    /// Stores the first failure for the sidecar.
    fn keep_failure(&mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        if let Err(failure) = &outcome {
            self.failure.get_or_insert_with(|| failure.clone());
        }
        outcome
    }
}

impl Target for Recording {
    fn video(&mut self, _stream: u8, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let outcome = self.take_packet(packet, now);
        self.keep_failure(outcome)
    }

    fn sound(&mut self, packet: EncodedPacket, now: Timestamp) -> Result<(), Failure> {
        let outcome = self.take_sound(packet, now);
        self.keep_failure(outcome)
    }

    fn note(&mut self, at: Timestamp, note: Note) -> Result<(), Failure> {
        self.room_state.apply(&note);
        if let Some(open) = &mut self.current {
            open.part.events().record(at, &note);
        }
        if let Note::Caption(caption) = note {
            let changes = self.captions.add(at, caption);
            let outcome = self.show_captions(&changes);
            return self.keep_failure(outcome);
        }
        Ok(())
    }

    fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        let outcome = self.advance(now);
        self.keep_failure(outcome)
    }

    fn finish(&mut self, now: Timestamp) -> Result<(), Failure> {
        let reason = self.failure.clone();
        let end = self.current.as_ref().map_or(0, |open| open.end);
        let mut outcome = Ok(());
        if let Some(sound) = self.sound.take() {
            // Up to now if video has stalled, but at most a second more.
            let until = end.max(self.unwrapper.ticks(now).min(end + u64::from(AUDIO_RATE)));
            outcome = sound.finish(until).and_then(|packets| self.put(packets));
        }
        for open in [self.previous.take(), self.current.take()].into_iter().flatten() {
            let closed = self.close(open, reason.as_ref());
            outcome = outcome.and(closed);
        }
        let (bytes, duration, dropped) = (self.bytes, self.duration, self.dropped);
        self.notifier.report(|report| {
            (report.bytes, report.duration, report.dropped, report.bitrate) = (bytes, duration, dropped, 0);
        });
        outcome
    }
}
