//! Separate recording of what each participant sends, without transcoding.
//!
//! Owns: [`Tracks`]: the sources of each participant and their files. Does not know: compositions and mixes. In:
//! participants' packets. Out: Matroska files.
//!
//! Camera and microphone of a participant, if both start within two seconds, are tracks of one file. A source that
//! starts later (a screen, another codec) gets a file of its own, because tracks cannot be added to a file; the
//! sidecars contain the offsets between the files.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use bytes::Bytes;

use super::clock::SourceClock;
use super::events::RoomState;
use super::file::{Folder, OutputFile};
use crate::codec::{Depayloader, coded_size, entry};
use crate::container::{Sample, TrackCodec, TrackSpec};
use crate::id::{ParticipantId, SourceId};
use crate::jitter::{VideoJitter, VideoPoll};
use crate::link::output::{FileReport, FileTarget, FromOutput, Note, OutputSettings};
use crate::media::{AUDIO_RATE, Codec, EncodedPacket, SourceKind, SourcePacket, VIDEO_CLOCK};
use crate::output::{Failure, Notifier, Target};
use crate::plan::SourceSpec;
use crate::room::document::OutputState;
use crate::time::Timestamp;

/// Longest time for which a file waits for a participant's other sources.
const START_WINDOW: Duration = Duration::from_secs(2);
/// Reorder delay of audio packets.
const REORDER_DELAY: Duration = Duration::from_millis(200);
/// Most audio packets in the reorder buffer, and most samples that wait for their file.
const MAX_PENDING: usize = 2_000;
/// Interval of disk checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Declared duration of a frame, corrected by the next one: a thirtieth of a second.
const DEFAULT_FRAME_DURATION: u32 = VIDEO_CLOCK / 30;

/// The target that records each participant's media in separate files.
pub(in crate::output) struct Tracks {
    notifier: Notifier,
    folder: Folder,
    epoch: Timestamp,
    room_state: RoomState,
    sources: BTreeMap<SourceId, Source>,
    participants: BTreeMap<ParticipantId, ParticipantFiles>,
    checked: Option<Timestamp>,
    /// Bytes of completed files.
    bytes: u64,
    /// Duration of the longest completed file.
    duration: Duration,
    dropped: u64,
    failure: Option<Failure>,
}

/// One source of a participant.
struct Source {
    spec: SourceSpec,
    clock: SourceClock,
    input: Input,
}

enum Input {
    Video {
        jitter: Box<VideoJitter>,
        depayloader: Depayloader,
    },
    /// Reorder buffer: arrival and payload by time.
    Sound(BTreeMap<u64, (Timestamp, Bytes)>),
}

/// A sample whose time counts from the epoch, in ticks of its track.
struct TimedSample {
    kind: SourceKind,
    codec: Codec,
    time: u64,
    duration: u32,
    keyframe: bool,
    data: Bytes,
}

#[derive(Default)]
struct ParticipantFiles {
    files: Vec<OpenFile>,
    /// Samples that wait for their file, and since when.
    pending: Vec<TimedSample>,
    since: Option<Timestamp>,
}

struct OpenFile {
    part: OutputFile,
    /// Source kind and codec of each track.
    tracks: Vec<(SourceKind, Codec)>,
    start: Duration,
    end: Duration,
}

impl TimedSample {
    fn begins(&self) -> Duration {
        let rate = if self.codec.kind() == crate::media::Kind::Video { VIDEO_CLOCK } else { AUDIO_RATE };
        Duration::from_micros((u128::from(self.time) * 1_000_000 / u128::from(rate)) as u64)
    }

    /// The description of a track that begins with this sample.
    fn spec(&self, title: &str) -> Option<TrackSpec> {
        let spec = match self.codec {
            Codec::Opus => TrackSpec::opus(2),
            Codec::Pcmu | Codec::Pcma => TrackSpec::g711(self.codec == Codec::Pcma),
            codec => TrackSpec::video(codec, coded_size(codec, &self.data)?, &self.data).ok()?,
        };
        Some(spec.named(title))
    }
}

impl OpenFile {
    /// Adds a sample; one before the start of the file is dropped.
    fn push(&mut self, track: usize, sample: TimedSample) -> Result<(), Failure> {
        let begins = sample.begins();
        let rate = if TrackCodec::from(sample.codec).is_video() { VIDEO_CLOCK } else { AUDIO_RATE };
        let start = (self.start.as_micros() * u128::from(rate) / 1_000_000) as u64;
        let Some(time) = sample.time.checked_sub(start) else { return Ok(()) };
        let TimedSample { duration, keyframe, data, .. } = sample;
        self.end = self.end.max(begins + Duration::from_micros(u64::from(duration) * 1_000_000 / u64::from(rate)));
        self.part.push(Sample { track, time, duration, keyframe, data })
    }

    fn lasts(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

impl Source {
    fn new(spec: SourceSpec, epoch: Timestamp) -> Self {
        let rate = spec.codec.clock_rate();
        let scale = match spec.codec {
            Codec::Pcmu | Codec::Pcma => AUDIO_RATE / rate,
            _ => 1,
        };
        let input = match spec.codec {
            Codec::Opus | Codec::Pcmu | Codec::Pcma => Input::Sound(BTreeMap::new()),
            codec => Input::Video { jitter: Box::default(), depayloader: Depayloader::new(codec) },
        };
        Self { spec, clock: SourceClock::new(epoch, rate, scale), input }
    }

    fn insert(&mut self, packet: SourcePacket, now: Timestamp) {
        match &mut self.input {
            Input::Video { jitter, .. } => {
                let starts = Depayloader::starts_keyframe(self.spec.codec, &packet.payload);
                jitter.insert(packet, starts, now);
            }
            Input::Sound(held) => {
                let time = self.clock.time(packet.timestamp, packet.arrival);
                held.insert(time, (now, packet.payload));
                if held.len() > MAX_PENDING {
                    held.pop_first();
                }
            }
        }
    }

    /// The next sample that is ready; an error when a keyframe must be requested from the sender.
    fn poll(&mut self, now: Timestamp) -> Result<Option<TimedSample>, KeyframeWanted> {
        let SourceSpec { kind, codec, .. } = self.spec;
        match &mut self.input {
            Input::Video { jitter, depayloader } => loop {
                match jitter.poll(now) {
                    VideoPoll::Frame(frame) => {
                        let first = &frame.packets[0];
                        let time = self.clock.time(first.timestamp, first.arrival);
                        match depayloader.frame(&frame.packets) {
                            // Parameter sets of the next picture, or padding.
                            Ok(None) => {}
                            Ok(Some(data)) => {
                                let keyframe = entry(codec, &data).is_some();
                                return Ok(Some(TimedSample {
                                    kind,
                                    codec,
                                    time,
                                    duration: DEFAULT_FRAME_DURATION,
                                    keyframe,
                                    data,
                                }));
                            }
                            Err(error) => tracing::debug!(%error, "malformed frame from a participant dropped"),
                        }
                    }
                    VideoPoll::KeyframeWanted => return Err(KeyframeWanted),
                    VideoPoll::Wait(_) | VideoPoll::Empty => return Ok(None),
                }
            },
            Input::Sound(held) => loop {
                let ready = held.first_entry().filter(|first| now.since(first.get().0) >= REORDER_DELAY);
                let Some((time, (_, data))) = ready.map(|first| first.remove_entry()) else { return Ok(None) };
                let duration = match codec {
                    Codec::Opus => opus_samples(&data),
                    _ => Some(data.len() as u32 * AUDIO_RATE / codec.clock_rate()),
                };
                if let Some(duration) = duration.filter(|duration| *duration > 0) {
                    return Ok(Some(TimedSample { kind, codec, time, duration, keyframe: true, data }));
                }
            },
        }
    }
}

struct KeyframeWanted;

/// Duration of an Opus packet in samples at 48 kHz (RFC 6716 §3.1, §3.2); None if it is malformed.
fn opus_samples(packet: &[u8]) -> Option<u32> {
    let contents = *packet.first()?;
    let frame = match contents >> 3 {
        config @ 0..12 => [480, 960, 1_920, 2_880][usize::from(config % 4)],
        config @ 12..16 => [480, 960][usize::from(config % 2)],
        config => [120, 240, 480, 960][usize::from(config % 4)],
    };
    let frames = match contents & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    Some(frame * frames).filter(|samples| *samples <= 5_760)
}

impl Tracks {
    /// Prepares the recording; files are created with the first samples.
    ///
    /// # Errors
    /// A text that names the fix.
    pub(in crate::output) fn open(
        settings: OutputSettings,
        target: FileTarget,
        notifier: &Notifier,
    ) -> Result<Self, Failure> {
        let OutputSettings { room, output, epoch, .. } = settings;
        Ok(Self {
            notifier: notifier.clone(),
            folder: Folder::open(target, room, output, epoch)?,
            epoch,
            room_state: RoomState::default(),
            sources: BTreeMap::new(),
            participants: BTreeMap::new(),
            checked: None,
            bytes: 0,
            duration: Duration::ZERO,
            dropped: 0,
            failure: None,
        })
    }

    /// Processes the samples that a source has ready.
    fn drain(&mut self, id: SourceId, now: Timestamp) -> Result<(), Failure> {
        while let Some(source) = self.sources.get_mut(&id) {
            let participant = source.spec.participant;
            match source.poll(now) {
                Ok(Some(sample)) => self.put(participant, sample, now)?,
                Ok(None) => break,
                Err(KeyframeWanted) => self.notifier.send(FromOutput::SourceKeyframeWanted(id)),
            }
        }
        Ok(())
    }

    fn put(&mut self, participant: ParticipantId, sample: TimedSample, now: Timestamp) -> Result<(), Failure> {
        let participant_files = self.participants.entry(participant).or_default();
        let holds = |open: &OpenFile| open.tracks.iter().position(|track| *track == (sample.kind, sample.codec));
        // The newest file with this kind and codec: the codec may have changed and changed back.
        let open = participant_files.files.iter_mut().rev().find_map(|open| holds(open).map(|track| (open, track)));
        if let Some((open, track)) = open {
            return open.push(track, sample);
        }
        let begun = participant_files.pending.iter().any(|pending| pending.kind == sample.kind);
        if !begun && !sample.keyframe || participant_files.pending.len() >= MAX_PENDING {
            self.dropped += 1;
            return Ok(());
        }
        participant_files.since.get_or_insert(now);
        participant_files.pending.push(sample);
        self.begin_if_complete(participant, now)
    }

    /// Begins a file with the pending samples if all sources have some, or [`START_WINDOW`] is over.
    fn begin_if_complete(&mut self, participant: ParticipantId, now: Timestamp) -> Result<(), Failure> {
        let Some(participant_files) = self.participants.get_mut(&participant) else { return Ok(()) };
        let Some(since) = participant_files.since else { return Ok(()) };
        let sources = || self.sources.values().map(|source| source.spec).filter(|spec| spec.participant == participant);
        let there = |spec: &SourceSpec| {
            let held = participant_files.files.iter().any(|open| open.tracks.contains(&(spec.kind, spec.codec)));
            held || participant_files.pending.iter().any(|sample| sample.kind == spec.kind)
        };
        if now.since(since) < START_WINDOW && !(sources().count() > 1 && sources().all(|spec| there(&spec))) {
            return Ok(());
        }
        self.begin(participant, now)
    }

    fn begin(&mut self, participant: ParticipantId, now: Timestamp) -> Result<(), Failure> {
        let Some(participant_files) = self.participants.get_mut(&participant) else { return Ok(()) };
        participant_files.since = None;
        let pending = mem::take(&mut participant_files.pending);
        let title = self.room_state.name(participant).map_or_else(|| participant.to_string(), str::to_owned);
        let mut tracks = Vec::new();
        let mut specs = Vec::new();
        for sample in &pending {
            if !tracks.contains(&(sample.kind, sample.codec))
                && let Some(spec) = sample.spec(&title)
            {
                tracks.push((sample.kind, sample.codec));
                specs.push(spec);
            }
        }
        let Some(start) = pending.iter().map(TimedSample::begins).min().filter(|_| !specs.is_empty()) else {
            return Ok(());
        };
        let at = self.epoch + start;
        let part = self.folder.create(specs, at, Some(participant), self.room_state.start_log(at))?;
        self.notifier.report_file(FileReport { name: part.name().to_owned(), part: part.number(), complete: false });
        let mut open = OpenFile { part, tracks, start, end: start };
        for sample in pending {
            if let Some(track) = open.tracks.iter().position(|track| *track == (sample.kind, sample.codec)) {
                open.push(track, sample)?;
            }
        }
        open.part.tick(now)?;
        participant_files.files.push(open);
        Ok(())
    }

    fn close(&mut self, mut open: OpenFile, reason: Option<&Failure>) -> Result<(), Failure> {
        open.part.set_duration(open.lasts());
        self.bytes += open.part.bytes();
        self.duration = self.duration.max(open.lasts());
        self.dropped += open.part.unordered();
        let report = FileReport { name: open.part.name().to_owned(), part: open.part.number(), complete: true };
        open.part.close(self.epoch + open.end, reason)?;
        self.notifier.report_file(report);
        Ok(())
    }

    /// Closes all files of a participant.
    fn close_all(
        &mut self,
        participant: ParticipantId,
        now: Timestamp,
        reason: Option<&Failure>,
    ) -> Result<(), Failure> {
        self.begin(participant, now)?;
        let files =
            self.participants.remove(&participant).map(|participant_files| participant_files.files).unwrap_or_default();
        // Closes every file, also after an error.
        let closed: Vec<Result<(), Failure>> = files.into_iter().map(|open| self.close(open, reason)).collect();
        closed.into_iter().collect()
    }

    fn advance(&mut self, now: Timestamp) -> Result<(), Failure> {
        let sources: Vec<SourceId> = self.sources.keys().copied().collect();
        sources.into_iter().try_for_each(|source| self.drain(source, now))?;
        let participants: Vec<ParticipantId> = self.participants.keys().copied().collect();
        participants.into_iter().try_for_each(|participant| self.begin_if_complete(participant, now))?;
        if self.checked.is_none_or(|checked| now.since(checked) >= CHECK_INTERVAL) {
            self.checked = Some(now);
            for open in self.participants.values_mut().flat_map(|participant_files| &mut participant_files.files) {
                open.part.set_duration(open.lasts());
                open.part.tick(now)?;
            }
            self.folder.check()?;
        }
        self.report();
        Ok(())
    }

    fn report(&self) {
        let open = || self.participants.values().flat_map(|participant_files| &participant_files.files);
        let bytes = self.bytes + open().map(|open| open.part.bytes()).sum::<u64>();
        let lasts = open().map(OpenFile::lasts).max().unwrap_or_default().max(self.duration);
        let dropped = self.dropped + open().map(|open| open.part.unordered()).sum::<u64>();
        self.notifier.report(|report| {
            if bytes > 0 && report.state == OutputState::Starting {
                report.state = OutputState::Live;
            }
            (report.bytes, report.duration, report.dropped) = (bytes, lasts, dropped);
        });
    }

    fn keep_failure(&mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        if let Err(failure) = &outcome {
            self.failure.get_or_insert_with(|| failure.clone());
        }
        outcome
    }
}

impl Target for Tracks {
    fn video(&mut self, _stream: u8, _packet: EncodedPacket, _now: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    fn sound(&mut self, _packet: EncodedPacket, _now: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    fn source(&mut self, source: SourceSpec, _now: Timestamp) -> Result<(), Failure> {
        self.sources.insert(source.source, Source::new(source, self.epoch));
        Ok(())
    }

    fn source_gone(&mut self, source: SourceId, now: Timestamp) -> Result<(), Failure> {
        // No more packets follow: the reorder delay is over.
        let outcome = self.drain(source, now + REORDER_DELAY);
        self.sources.remove(&source);
        self.keep_failure(outcome)
    }

    fn packet(&mut self, source: SourceId, packet: SourcePacket, now: Timestamp) -> Result<(), Failure> {
        if let Some(source) = self.sources.get_mut(&source) {
            source.insert(packet, now);
        }
        let outcome = self.drain(source, now);
        self.keep_failure(outcome)
    }

    fn note(&mut self, at: Timestamp, note: Note) -> Result<(), Failure> {
        self.room_state.apply(&note);
        for open in self.participants.values_mut().flat_map(|participant_files| &mut participant_files.files) {
            open.part.events().record(at, &note);
        }
        let Note::Gone(participant) = note else { return Ok(()) };
        let outcome = self.close_all(participant, at, None);
        self.keep_failure(outcome)
    }

    fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        let outcome = self.advance(now);
        self.keep_failure(outcome)
    }

    fn finish(&mut self, now: Timestamp) -> Result<(), Failure> {
        let sources: Vec<SourceId> = self.sources.keys().copied().collect();
        let mut outcome = sources.into_iter().try_for_each(|source| self.source_gone(source, now));
        let reason = self.failure.clone();
        let participants: Vec<ParticipantId> = self.participants.keys().copied().collect();
        for participant in participants {
            let closed = self.close_all(participant, now, reason.as_ref());
            outcome = outcome.and(closed);
        }
        self.report();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus_durations_are_read_from_the_toc_byte() {
        for (packet, samples) in [
            (&[31 << 3, 0xff, 0xfe][..], Some(960)),
            (&[0x08, 1], Some(960)),
            (&[0x0b, 3, 1, 1], Some(2_880)),
            (&[0x61, 1], Some(960)),
            (&[0x1b, 9], None),
            (&[], None),
        ] {
            assert_eq!(opus_samples(packet), samples, "{packet:?}");
        }
    }
}
