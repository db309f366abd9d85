//! Separate tracks: what each participant sends, as it is.
//!
//! A participant's camera and microphone, if both begin within two seconds, are tracks of one Matroska file. What begins
//! later (a screen, another codec) gets a file of its own, since a file's tracks cannot become more: the JSON says how the
//! files lie beside each other.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use bytes::Bytes;

use super::clock::SourceClock;
use super::diary::Diary;
use super::file::{Folder, Part};
use crate::codec::{Depayloader, coded_size};
use crate::container::{Sample, TrackCodec, TrackSpec};
use crate::id::{ParticipantId, SourceId};
use crate::jitter::{VideoJitter, VideoPoll};
use crate::link::output::{FileReport, FileTarget, FromOutput, Note, OutputSettings};
use crate::media::{AUDIO_RATE, Codec, EncodedPacket, SourceKind, SourcePacket, VIDEO_CLOCK};
use crate::output::{Desk, Failure, Target};
use crate::plan::SourceSpec;
use crate::room::document::OutputState;
use crate::time::Timestamp;

/// How long a participant's first sources are waited for before a file begins with those that are there.
const TOGETHER: Duration = Duration::from_secs(2);
/// How long a packet of sound waits for those before it.
const REORDER: Duration = Duration::from_millis(200);
/// Packets of sound that wait at most, and samples that wait for their file.
const WAITING: usize = 2_000;
/// How often the disk is looked at.
const CHECK: Duration = Duration::from_secs(1);
/// How long a frame lasts when none follows: a thirtieth of a second.
const FRAME: u32 = VIDEO_CLOCK / 30;

/// What each participant sends, in files of their own.
pub(in crate::output) struct Tracks {
    desk: Desk,
    folder: Folder,
    epoch: Timestamp,
    diary: Diary,
    sources: BTreeMap<SourceId, Source>,
    people: BTreeMap<ParticipantId, Person>,
    checked: Option<Timestamp>,
    /// Of files that are complete.
    bytes: u64,
    /// The longest that any participant's files are.
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
    /// Packets in the order of their times, until those that were overtaken have come.
    Sound(BTreeMap<u64, (Timestamp, Bytes)>),
}

/// A sample whose time counts from the epoch, in ticks of its track's clock.
struct Made {
    kind: SourceKind,
    codec: Codec,
    time: u64,
    duration: u32,
    keyframe: bool,
    data: Bytes,
}

#[derive(Default)]
struct Person {
    files: Vec<Open>,
    /// What waits for a file to begin, and since when.
    waiting: Vec<Made>,
    since: Option<Timestamp>,
}

struct Open {
    part: Part,
    /// What its tracks hold, in their order.
    tracks: Vec<(SourceKind, Codec)>,
    start: Duration,
    end: Duration,
}

impl Made {
    fn begins(&self) -> Duration {
        let rate = if self.codec.kind() == crate::media::Kind::Video { VIDEO_CLOCK } else { AUDIO_RATE };
        Duration::from_micros((u128::from(self.time) * 1_000_000 / u128::from(rate)) as u64)
    }

    /// Its track, where it begins one.
    fn spec(&self, title: &str) -> Option<TrackSpec> {
        let spec = match self.codec {
            Codec::Opus => TrackSpec::opus(2),
            Codec::Pcmu | Codec::Pcma => TrackSpec::g711(self.codec == Codec::Pcma),
            codec => TrackSpec::video(codec, coded_size(codec, &self.data)?, &self.data).ok()?,
        };
        Some(spec.named(title))
    }
}

impl Open {
    /// Adds a sample that begins after the file does.
    fn push(&mut self, track: usize, made: Made) -> Result<(), Failure> {
        let begins = made.begins();
        let rate = if TrackCodec::from(made.codec).is_video() { VIDEO_CLOCK } else { AUDIO_RATE };
        let start = (self.start.as_micros() * u128::from(rate) / 1_000_000) as u64;
        let Some(time) = made.time.checked_sub(start) else { return Ok(()) };
        let Made { duration, keyframe, data, .. } = made;
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
                if held.len() > WAITING {
                    held.pop_first();
                }
            }
        }
    }

    /// The next sample that is ready; Err when a keyframe is wanted of the sender.
    fn poll(&mut self, now: Timestamp) -> Result<Option<Made>, KeyframeWanted> {
        let SourceSpec { kind, codec, .. } = self.spec;
        match &mut self.input {
            Input::Video { jitter, depayloader } => loop {
                match jitter.poll(now) {
                    VideoPoll::Frame(frame) => {
                        let first = &frame.packets[0];
                        let time = self.clock.time(first.timestamp, first.arrival);
                        match depayloader.frame(&frame.packets) {
                            Ok(data) => {
                                let keyframe = frame.starts_keyframe;
                                return Ok(Some(Made { kind, codec, time, duration: FRAME, keyframe, data }));
                            }
                            Err(error) => tracing::debug!(%error, "a participant's frame is left out"),
                        }
                    }
                    VideoPoll::KeyframeWanted => return Err(KeyframeWanted),
                    VideoPoll::Wait(_) | VideoPoll::Empty => return Ok(None),
                }
            },
            Input::Sound(held) => loop {
                let ready = held.first_entry().filter(|first| now.since(first.get().0) >= REORDER);
                let Some((time, (_, data))) = ready.map(|first| first.remove_entry()) else { return Ok(None) };
                let duration = match codec {
                    Codec::Opus => opus_samples(&data),
                    _ => Some(data.len() as u32 * AUDIO_RATE / codec.clock_rate()),
                };
                if let Some(duration) = duration.filter(|duration| *duration > 0) {
                    return Ok(Some(Made { kind, codec, time, duration, keyframe: true, data }));
                }
            },
        }
    }
}

struct KeyframeWanted;

/// Samples at 48 kHz of an Opus packet (RFC 6716 §3.1, §3.2); None for what is none.
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
    /// Ready to record; a participant's file is made when there is something to put into it.
    ///
    /// # Errors
    /// Words that say what to change.
    pub(in crate::output) fn open(settings: OutputSettings, target: FileTarget, desk: &Desk) -> Result<Self, Failure> {
        let OutputSettings { room, output, epoch, .. } = settings;
        Ok(Self {
            desk: desk.clone(),
            folder: Folder::open(target, room, output, epoch)?,
            epoch,
            diary: Diary::default(),
            sources: BTreeMap::new(),
            people: BTreeMap::new(),
            checked: None,
            bytes: 0,
            duration: Duration::ZERO,
            dropped: 0,
            failure: None,
        })
    }

    /// Takes what a source has ready.
    fn drain(&mut self, id: SourceId, now: Timestamp) -> Result<(), Failure> {
        while let Some(source) = self.sources.get_mut(&id) {
            let participant = source.spec.participant;
            match source.poll(now) {
                Ok(Some(made)) => self.put(participant, made, now)?,
                Ok(None) => break,
                Err(KeyframeWanted) => self.desk.say(FromOutput::SourceKeyframeWanted(id)),
            }
        }
        Ok(())
    }

    fn put(&mut self, participant: ParticipantId, made: Made, now: Timestamp) -> Result<(), Failure> {
        let person = self.people.entry(participant).or_default();
        let holds = |open: &Open| open.tracks.iter().position(|track| *track == (made.kind, made.codec));
        // The newest one: an older one may have held the same before another codec came.
        let open = person.files.iter_mut().rev().find_map(|open| holds(open).map(|track| (open, track)));
        if let Some((open, track)) = open {
            return open.push(track, made);
        }
        let begun = person.waiting.iter().any(|waiting| waiting.kind == made.kind);
        if !begun && !made.keyframe || person.waiting.len() >= WAITING {
            self.dropped += 1;
            return Ok(());
        }
        person.since.get_or_insert(now);
        person.waiting.push(made);
        self.begin_if_complete(participant, now)
    }

    /// Begins a file with what waits, if nothing more is to be waited for.
    fn begin_if_complete(&mut self, participant: ParticipantId, now: Timestamp) -> Result<(), Failure> {
        let Some(person) = self.people.get_mut(&participant) else { return Ok(()) };
        let Some(since) = person.since else { return Ok(()) };
        let sources = || self.sources.values().map(|source| source.spec).filter(|spec| spec.participant == participant);
        let there = |spec: &SourceSpec| {
            let held = person.files.iter().any(|open| open.tracks.contains(&(spec.kind, spec.codec)));
            held || person.waiting.iter().any(|made| made.kind == spec.kind)
        };
        if now.since(since) < TOGETHER && !(sources().count() > 1 && sources().all(|spec| there(&spec))) {
            return Ok(());
        }
        self.begin(participant, now)
    }

    fn begin(&mut self, participant: ParticipantId, now: Timestamp) -> Result<(), Failure> {
        let Some(person) = self.people.get_mut(&participant) else { return Ok(()) };
        person.since = None;
        let waiting = mem::take(&mut person.waiting);
        let title = self.diary.name(participant).map_or_else(|| participant.to_string(), str::to_owned);
        let mut tracks = Vec::new();
        let mut specs = Vec::new();
        for made in &waiting {
            if !tracks.contains(&(made.kind, made.codec))
                && let Some(spec) = made.spec(&title)
            {
                tracks.push((made.kind, made.codec));
                specs.push(spec);
            }
        }
        let Some(start) = waiting.iter().map(Made::begins).min().filter(|_| !specs.is_empty()) else { return Ok(()) };
        let at = self.epoch + start;
        let part = self.folder.create(specs, at, Some(participant), self.diary.open(at))?;
        self.desk.file(FileReport { name: part.name().to_owned(), part: part.number(), complete: false });
        let mut open = Open { part, tracks, start, end: start };
        for made in waiting {
            if let Some(track) = open.tracks.iter().position(|track| *track == (made.kind, made.codec)) {
                open.push(track, made)?;
            }
        }
        open.part.tick(now)?;
        person.files.push(open);
        Ok(())
    }

    fn close(&mut self, mut open: Open, reason: Option<&Failure>) -> Result<(), Failure> {
        open.part.lasts(open.lasts());
        self.bytes += open.part.bytes();
        self.duration = self.duration.max(open.lasts());
        self.dropped += open.part.unordered();
        let report = FileReport { name: open.part.name().to_owned(), part: open.part.number(), complete: true };
        open.part.close(self.epoch + open.end, reason)?;
        self.desk.file(report);
        Ok(())
    }

    /// Somebody has left: the files are complete.
    fn close_all(
        &mut self,
        participant: ParticipantId,
        now: Timestamp,
        reason: Option<&Failure>,
    ) -> Result<(), Failure> {
        self.begin(participant, now)?;
        let files = self.people.remove(&participant).map(|person| person.files).unwrap_or_default();
        // Each is closed, whatever becomes of the others.
        let closed: Vec<Result<(), Failure>> = files.into_iter().map(|open| self.close(open, reason)).collect();
        closed.into_iter().collect()
    }

    fn time_passes(&mut self, now: Timestamp) -> Result<(), Failure> {
        let sources: Vec<SourceId> = self.sources.keys().copied().collect();
        sources.into_iter().try_for_each(|source| self.drain(source, now))?;
        let people: Vec<ParticipantId> = self.people.keys().copied().collect();
        people.into_iter().try_for_each(|participant| self.begin_if_complete(participant, now))?;
        if self.checked.is_none_or(|checked| now.since(checked) >= CHECK) {
            self.checked = Some(now);
            for open in self.people.values_mut().flat_map(|person| &mut person.files) {
                open.part.lasts(open.lasts());
                open.part.tick(now)?;
            }
            self.folder.check()?;
        }
        self.report();
        Ok(())
    }

    fn report(&self) {
        let open = || self.people.values().flat_map(|person| &person.files);
        let bytes = self.bytes + open().map(|open| open.part.bytes()).sum::<u64>();
        let lasts = open().map(Open::lasts).max().unwrap_or_default().max(self.duration);
        let dropped = self.dropped + open().map(|open| open.part.unordered()).sum::<u64>();
        self.desk.report(|report| {
            if bytes > 0 && report.state == OutputState::Starting {
                report.state = OutputState::Live;
            }
            (report.bytes, report.duration, report.dropped) = (bytes, lasts, dropped);
        });
    }

    fn keep(&mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
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
        // What still waits to be put in order is all there is.
        let outcome = self.drain(source, now + REORDER);
        self.sources.remove(&source);
        self.keep(outcome)
    }

    fn packet(&mut self, source: SourceId, packet: SourcePacket, now: Timestamp) -> Result<(), Failure> {
        if let Some(source) = self.sources.get_mut(&source) {
            source.insert(packet, now);
        }
        let outcome = self.drain(source, now);
        self.keep(outcome)
    }

    fn note(&mut self, at: Timestamp, note: Note) -> Result<(), Failure> {
        self.diary.note(&note);
        for open in self.people.values_mut().flat_map(|person| &mut person.files) {
            open.part.pages().note(at, &note);
        }
        let Note::Gone(participant) = note else { return Ok(()) };
        let outcome = self.close_all(participant, at, None);
        self.keep(outcome)
    }

    /// Nothing waited in a mixer: participants' packets come by another way.
    fn sound_lag(&mut self, _lag: Duration) {}

    fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        let outcome = self.time_passes(now);
        self.keep(outcome)
    }

    fn finish(&mut self, now: Timestamp) -> Result<(), Failure> {
        let sources: Vec<SourceId> = self.sources.keys().copied().collect();
        let mut outcome = sources.into_iter().try_for_each(|source| self.source_gone(source, now));
        let reason = self.failure.clone();
        let people: Vec<ParticipantId> = self.people.keys().copied().collect();
        for participant in people {
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
    fn opus_packets_say_how_long_they_are() {
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
