//! A running mixer: its threads, and the dispatch of messages to them.
//!
//! Owns: the threads, and which message goes to which of them. Does not know: where messages come from, a socket
//! ([`super::process`]) or a test. In: [`Mixer::handle`]. Out: the [`Outbox`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::builder::Builder;
use super::compose::FrameSlot;
use super::encode::EncodeOptions;
use super::filter::Filters;
use super::images::Images;
use super::ingest::Ingest;
use super::lip_sync::LipSync;
use super::outbox::Outbox;
use super::sound::audio_loop::{self, SoundInbox, SoundInput};
use super::ticks::{Busy, Watched};
use super::video::{Slots, VideoCounts, VideoInbox, VideoLoop};
use crate::codec::{self, DecodeLimits, Feature, H264Encoder};
use crate::filter::{FilterSpec, Media};
use crate::id::{ParticipantId, SourceId, ViewName};
use crate::layout::Scene;
use crate::link::{FromMixer, MixerReport, MixerSettings, ToMixer};
use crate::media::{Kind, Size, SourceKind, SourcePacket};
use crate::plan::{SourceSpec, StreamSet};
use crate::time::{self, Timestamp, now};

/// Interval of reports. The edge takes a mixer that sends nothing, and is late with its report, for hung.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Interval of reports of an idle mixer.
const IDLE_REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// Most ticks between two reports of an idle mixer.
const IDLE_TICKS: u64 = 3;

/// A mixer in this process. Dropping it ends its threads.
pub struct Mixer {
    outbox: Arc<Outbox>,
    room: Option<Room>,
}

impl Mixer {
    /// A mixer that waits for its first message, [`ToMixer::Configure`], and sends messages by `outbox`.
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, room: None }
    }

    /// Handles a message.
    pub fn handle(&mut self, message: ToMixer) {
        match (message, &mut self.room) {
            (ToMixer::Configure(settings), None) => self.room = Some(Room::new(&settings, &self.outbox)),
            (ToMixer::Configure(_), Some(_)) => tracing::warn!("mixer configured twice: second settings ignored"),
            (message, Some(room)) => room.handle(message),
            (_, None) => tracing::warn!("message before the settings ignored"),
        }
    }

    /// All messages of one read were handled: updates the alarm of the timer.
    pub fn batch_handled(&mut self) {
        if let Some(room) = &mut self.room {
            room.batch_handled();
        }
    }
}

/// The mixer of one room, once its settings are known.
struct Room {
    sound: Arc<Watched<SoundInbox>>,
    video: Arc<Watched<VideoInbox>>,
    timer: Arc<Watched<Timer>>,
    ingest: Arc<Mutex<Ingest>>,
    slots: Arc<Slots>,
    filters: Arc<Filters>,
    images: Images,
    /// The sources in each view with their sizes, and the width of the canvas.
    scenes: BTreeMap<ViewName, (Vec<(SourceId, Size)>, u32)>,
    /// The views that have streams, with the width of the largest: a source in one of these is shown.
    watched: BTreeMap<ViewName, u32>,
    /// Kind and participant of each source.
    sources: BTreeMap<SourceId, (Kind, ParticipantId)>,
    /// Of the participants that have sources.
    lip_syncs: BTreeMap<ParticipantId, Arc<LipSync>>,
    /// The cameras and screens of each participant.
    pictures: BTreeMap<ParticipantId, BTreeMap<SourceId, Arc<FrameSlot>>>,
    /// Packets came since the last [`Room::batch_handled`].
    has_packets: bool,
    /// Packets or orders came since then.
    has_work: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Room {
    fn new(settings: &MixerSettings, outbox: &Arc<Outbox>) -> Self {
        let h264 = if settings.openh264 { H264Encoder::OpenH264 } else { H264Encoder::X264 };
        outbox.push(FromMixer::Ready { missing: codec::missing(Feature::of_mixer(h264)) });
        tracing::info!(room = %settings.room, "mixer configured");

        let limits = DecodeLimits { max: settings.max_source };
        let counts = Arc::new(VideoCounts::default());
        // Of the video and of the audio loop.
        let busy: [Arc<Busy>; 2] = Default::default();
        let (sound, video, timer) =
            <(Arc<Watched<SoundInbox>>, Arc<Watched<VideoInbox>>, Arc<Watched<Timer>>)>::default();
        let slots = Arc::new(Slots::new(video.clone()));
        let filters = Arc::new(Filters::new(outbox.clone(), settings.filter_budget));
        let images = Images::new(video.clone(), filters.clone(), outbox.clone());

        let ingest = Ingest::new(limits, outbox.clone(), Builder::new("build-decoders"), {
            let timer = timer.clone();
            move || Timer::set(&timer, Some(now()))
        });
        let ingest = Arc::new(Mutex::new(ingest));
        let video_loop = VideoLoop {
            epoch: settings.epoch,
            options: EncodeOptions { h264, threads: settings.threads.max(1) },
            transitions: Duration::from_millis(settings.transition_ms.into()),
            threads: drawing_threads(settings.threads),
            slots: slots.clone(),
            filters: filters.clone(),
            outbox: outbox.clone(),
            counts: counts.clone(),
            busy: busy[0].clone(),
            builder: Builder::new("build-encoders"),
        };
        let reporter = Reporter {
            sound: sound.clone(),
            ingest: ingest.clone(),
            counts,
            busy: busy.clone(),
            filters: filters.clone(),
            outbox: outbox.clone(),
        };
        let (epoch, sounds, sound_threads) = (settings.epoch, settings.sounds, settings.threads);
        let threads = vec![
            spawn("video-tick", {
                let inbox = video.clone();
                move || video_loop.run(&inbox)
            }),
            spawn("audio-tick", {
                let (inbox, outbox, [_, busy]) = (sound.clone(), outbox.clone(), busy);
                move || audio_loop::run(epoch, sounds, sound_threads, &inbox, &outbox, &busy)
            }),
            spawn("timer", {
                let timer = timer.clone();
                move || reporter.run(&timer)
            }),
        ];
        Self {
            sound,
            video,
            timer,
            ingest,
            slots,
            filters,
            images,
            scenes: BTreeMap::new(),
            watched: BTreeMap::new(),
            sources: BTreeMap::new(),
            lip_syncs: BTreeMap::new(),
            pictures: BTreeMap::new(),
            has_packets: false,
            has_work: false,
            threads,
        }
    }

    fn handle(&mut self, message: ToMixer) {
        self.has_work |= !matches!(message, ToMixer::Heard(_));
        match message {
            // Handled by the mixer itself.
            ToMixer::Configure(_) => {}
            ToMixer::Source(spec) => self.set_source(spec),
            ToMixer::SourceGone(source) => self.remove_source(source),
            ToMixer::Filters(source, specs) => self.set_filters(source, specs),
            ToMixer::ViewFilters(view, specs) => {
                let inbox = self.video.clone();
                self.filters.set_view(view, specs, move || VideoInbox::damage(&inbox));
                VideoInbox::damage(&self.video);
            }
            ToMixer::Packet(source, packet) => self.insert(source, packet),
            ToMixer::Heard(source) => self.hear(source, now()),
            ToMixer::Scene(scene) => self.set_scene(scene),
            ToMixer::SceneGone(view) => self.remove_scene(view),
            ToMixer::Mix(plan) => SoundInbox::push(&self.sound, SoundInput::Plan(plan)),
            ToMixer::Streams(set) => self.set_streams(set),
            ToMixer::Overlays(view, overlays) => VideoInbox::overlays(&self.video, view, overlays),
            ToMixer::ImagePart { name, kind, part, left } => self.images.part(name, kind, &part, left),
            ToMixer::ImageGone(name) => self.images.remove(name),
            ToMixer::Keyframe { serial } => VideoInbox::keyframe(&self.video, serial),
        }
    }

    fn set_source(&mut self, spec: SourceSpec) {
        self.sources.insert(spec.source, (spec.kind.kind(), spec.participant));
        let lip_sync = self.lip_syncs.entry(spec.participant).or_default().clone();
        match spec.kind.kind() {
            Kind::Audio => SoundInbox::push(&self.sound, SoundInput::Source(spec, lip_sync)),
            Kind::Video => {
                // A shared screen is shown without delay: speech need not match it as closely.
                let lip_sync = Some(lip_sync).filter(|_| spec.kind == SourceKind::Camera);
                let slot = self.slots.slot(spec.source, spec.kind, lip_sync.clone());
                self.pictures.entry(spec.participant).or_default().insert(spec.source, slot.clone());
                self.ingest.lock().set_source(spec, slot, self.filters.stage(spec.source), lip_sync);
            }
        }
    }

    /// The source may not be known yet; only a microphone has filters of sound.
    fn set_filters(&self, source: SourceId, specs: Vec<FilterSpec>) {
        let stage = (!specs.is_empty()).then(|| self.filters.stage(source));
        let is_sound = specs.iter().all(|spec| spec.media == Media::Audio);
        self.filters.set(source, specs);
        if is_sound {
            SoundInbox::push(&self.sound, SoundInput::Filters(source, stage));
        }
    }

    fn remove_source(&mut self, source: SourceId) {
        self.filters.remove(source);
        let removed = self.sources.remove(&source);
        if let Some((_, participant)) = removed
            && !self.sources.values().any(|(_, other)| *other == participant)
        {
            self.lip_syncs.remove(&participant);
        }
        match removed {
            Some((Kind::Audio, _)) => SoundInbox::push(&self.sound, SoundInput::Gone(source)),
            Some((Kind::Video, participant)) => {
                if let Entry::Occupied(mut pictures) = self.pictures.entry(participant) {
                    pictures.get_mut().remove(&source);
                    if pictures.get().is_empty() {
                        pictures.remove();
                    }
                }
                self.ingest.lock().remove_source(source);
                self.slots.remove(source);
            }
            None => {}
        }
    }

    fn insert(&mut self, source: SourceId, packet: SourcePacket) {
        match self.sources.get(&source) {
            Some((Kind::Audio, _)) => {
                let now = now();
                self.hear(source, now);
                SoundInbox::push(&self.sound, SoundInput::Packet(source, packet, now));
            }
            Some((Kind::Video, _)) => {
                self.ingest.lock().insert(source, packet, now());
                self.has_packets = true;
            }
            None => {}
        }
    }

    /// The sender of a microphone is there: its cameras and screens are not lost.
    fn hear(&self, microphone: SourceId, now: Timestamp) {
        let Some((Kind::Audio, participant)) = self.sources.get(&microphone) else { return };
        for slot in self.pictures.get(participant).into_iter().flat_map(BTreeMap::values) {
            slot.hear(now);
        }
    }

    fn set_scene(&mut self, scene: Scene) {
        let sources = scene.tiles.iter().filter_map(|tile| Some((tile.source?, tile.uncropped())));
        self.scenes.insert(scene.view.clone(), (sources.collect(), scene.canvas.width.max(1)));
        VideoInbox::scene(&self.video, scene);
        self.show();
    }

    fn remove_scene(&mut self, view: ViewName) {
        self.scenes.remove(&view);
        VideoInbox::scene_gone(&self.video, view);
        self.show();
    }

    fn set_streams(&mut self, set: StreamSet) {
        self.watched.clear();
        for spec in &set.streams {
            let width = self.watched.entry(spec.key.view.clone()).or_default();
            *width = spec.size.width.max(*width);
        }
        VideoInbox::streams(&self.video, set);
        self.show();
    }

    fn show(&self) {
        let mut shown: BTreeMap<SourceId, Size> = BTreeMap::new();
        for (view, (sources, canvas)) in &self.scenes {
            let Some(width) = self.watched.get(view) else { continue };
            for (source, size) in sources {
                let scaled = |pixels: u32| (pixels * width).div_ceil(*canvas);
                let size = Size::new(scaled(size.width), scaled(size.height));
                let largest = shown.entry(*source).or_insert(size);
                *largest = Size::new(largest.width.max(size.width), largest.height.max(size.height));
            }
        }
        let mut ingest = self.ingest.lock();
        ingest.want(&shown);
        ingest.set_shown(shown.into_keys().collect(), now());
    }

    fn batch_handled(&mut self) {
        if std::mem::take(&mut self.has_work) {
            Timer::end_idle(&self.timer);
        }
        if std::mem::take(&mut self.has_packets) {
            let wake = self.ingest.lock().poll(now());
            Timer::set(&self.timer, wake);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        SoundInbox::close(&self.sound);
        VideoInbox::close(&self.video);
        self.timer.change(|timer| timer.closed = true);
        for thread in self.threads.drain(..) {
            // The panic of a thread was logged by the panic hook.
            let _ended = thread.join();
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name(name.into()).spawn(body).expect("a mixer can have three threads")
}

/// Threads that share the drawing of large canvases; None on one core.
fn drawing_threads(threads: u32) -> Option<Arc<rayon::ThreadPool>> {
    if threads < 2 {
        return None;
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads as usize).thread_name(|i| format!("draw-{i}"));
    match pool.build() {
        Ok(pool) => Some(Arc::new(pool)),
        Err(error) => {
            tracing::warn!(%error, "cannot start drawing threads: the video loop draws alone");
            None
        }
    }
}

/// What the timer waits for.
#[derive(Debug, Default)]
struct Timer {
    /// When the ingest is to be polled: a wait for a lost packet is over, or a decoder is there.
    wake: Option<Timestamp>,
    /// The last report announced that the next one comes late, and nothing but signs of life has come since.
    idle: bool,
    closed: bool,
}

impl Timer {
    /// A packet or an order has come: the next report comes soon.
    fn end_idle(timer: &Watched<Self>) {
        let was_idle = std::mem::take(&mut timer.lock().idle);
        if was_idle {
            timer.wake();
        }
    }

    /// Sets the alarm, unless an earlier one is set. Only an earlier one wakes the timer's thread.
    fn set(timer: &Watched<Self>, wake: Option<Timestamp>) {
        let is_earlier = timer.lock().advance(wake);
        if is_earlier {
            timer.wake();
        }
    }

    /// Returns whether the alarm is earlier than before.
    fn advance(&mut self, wake: Option<Timestamp>) -> bool {
        let before = self.wake;
        self.wake = before.into_iter().chain(wake).min();
        self.wake != before
    }

    /// Whether the alarm is due; then it is off, so that one set from now on is not lost.
    fn ring(&mut self, now: Timestamp) -> bool {
        self.wake.take_if(|wake| *wake <= now).is_some()
    }
}

/// Sends reports, and polls the ingest when an alarm is due although no packet comes.
struct Reporter {
    sound: Arc<Watched<SoundInbox>>,
    ingest: Arc<Mutex<Ingest>>,
    counts: Arc<VideoCounts>,
    busy: [Arc<Busy>; 2],
    filters: Arc<Filters>,
    outbox: Arc<Outbox>,
}

impl Reporter {
    fn run(&self, timer: &Watched<Timer>) {
        let (mut next_report, mut ticks) = (now(), 0);
        loop {
            let at = now();
            if at >= next_report {
                let mut report = self.report();
                let ticks_before = std::mem::replace(&mut ticks, report.video_ticks + report.audio_ticks);
                let is_idle = ticks - ticks_before <= IDLE_TICKS;
                report.next = if is_idle { IDLE_REPORT_INTERVAL } else { REPORT_INTERVAL };
                next_report = at + report.next;
                timer.lock().idle = is_idle;
                self.outbox.push(FromMixer::Report(report));
            }
            let mut state = timer.lock();
            if !state.idle {
                next_report = next_report.min(at + REPORT_INTERVAL);
            }
            if state.ring(at) {
                drop(state);
                let wake = self.ingest.lock().poll(at);
                state = timer.lock();
                state.advance(wake);
            }
            if state.closed {
                return;
            }
            let until = state.wake.map_or(next_report, |wake| wake.min(next_report));
            timer.wait(&mut state, Some(until));
        }
    }

    fn report(&self) -> MixerReport {
        let audio = self.sound.lock().counts();
        let sound = audio.sound;
        let (dropped, skipped) = {
            let ingest = self.ingest.lock();
            (ingest.dropped(), ingest.skipped())
        };
        let (filter_frames, filter_cpu_us) = self.filters.counts().load();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        MixerReport {
            video_ticks: count(&self.counts.ticks),
            video_late: count(&self.counts.late),
            video_left_out: count(&self.counts.left_out),
            encoder_skipped: count(&self.counts.skipped),
            unchanged: count(&self.counts.unchanged),
            repeated: count(&self.counts.repeated),
            encoded: count(&self.counts.encoded),
            audio_ticks: sound.ticks,
            audio_late: audio.late,
            audio_left_out: audio.skipped,
            audio_reduced: audio.reduced,
            talkers_left_out: sound.left_out,
            audio_effort: audio.effort,
            audio_encoded: sound.encoded,
            concealed: sound.concealed,
            source_frames_dropped: dropped,
            source_units_skipped: skipped,
            filter_frames,
            filter_cpu_us,
            filters_removed: self.filters.counts().removals(),
            link_dropped: self.outbox.dropped(),
            next: REPORT_INTERVAL,
            stalled: self.busy.iter().map(|busy| busy.for_how_long(now())).max().unwrap_or_default(),
            cpu_ms: time::process_cpu().as_millis() as u64,
            rss_kib: rss_kib(),
        }
    }
}

/// Resident memory in KiB from `/proc/self/statm`; 0 if it cannot be read.
fn rss_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64 / 1024
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    #[test]
    fn an_alarm_set_while_another_rings_is_kept() {
        let mut timer = Timer::default();
        timer.advance(Some(at(100)));
        assert!(!timer.ring(at(99)) && timer.ring(at(100)));
        // The link reader sets an alarm while the timer thread polls the ingest, whose alarm is later.
        timer.advance(Some(at(120)));
        timer.advance(Some(at(400)));
        assert_eq!(timer.wake, Some(at(120)));
        timer.advance(None);
        assert_eq!(timer.wake, Some(at(120)));
    }

    proptest! {
        /// The alarm is the earliest one that has not rung.
        #[test]
        fn the_earliest_alarm_is_kept(steps in prop::collection::vec((any::<bool>(), 0..100_u64), 1..50)) {
            let (mut timer, mut set) = (Timer::default(), Vec::new());
            for (rings, ms) in steps {
                if rings {
                    prop_assert_eq!(timer.ring(at(ms)), set.iter().any(|&alarm| alarm <= ms));
                    if set.iter().any(|&alarm| alarm <= ms) {
                        set.clear();
                    }
                } else {
                    timer.advance(Some(at(ms)));
                    set.push(ms);
                }
                prop_assert_eq!(timer.wake, set.iter().min().map(|&ms| at(ms)));
            }
        }
    }
}
