//! Intake: demuxes and decodes a source of any container and codec.
//!
//! Owns: the graph, the bounded queues of pictures and samples, and the limits on untrusted media ([`confine`], the
//! size of pictures). Does not know: the playout clock, rooms. In: a file, a URL or a [`Feed`]. Out: pictures and
//! samples with their times, by [`Intake::picture`] and [`Intake::sound`], which never wait; `wake` is called after
//! each change.

mod allow;
mod demuxed;
mod feed;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod mp4;
mod mpegts;
mod rebase;
mod retime;
mod sizes;
mod web;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use gstreamer_video as gst_video;
use parking_lot::{Condvar, Mutex};

pub use self::feed::{Feed, FeedFormat, Feeder};
use self::rebase::Rebaser;
use self::retime::TsRetime;
use self::sizes::{LARGEST, too_large};
pub use self::web::{Exchange, Fetch, Fetched, set_fetch};
use super::picture::Picture;
use super::{CodecError, init};
use crate::media::{AUDIO_RATE, Colours, Kind, Matrix, Size};
use crate::pipeline::PipelineError;
use crate::pipeline::graph::{Branches, Graph, Piece};
use crate::time::{Timestamp, now};

/// Most pictures in the queue: 1 s at 30 pictures a second.
const PICTURES_MAX: usize = 32;
/// Most pixels in the queue, unless there are fewer than [`PICTURES_MIN`] pictures.
const PIXELS_MAX: u64 = 32 << 20;
/// See [`PIXELS_MAX`].
const PICTURES_MIN: usize = 4;
/// Most buffers of samples in the queue: 0.68 s of AAC frames.
const SOUNDS_MAX: usize = 32;
/// Most samples in one buffer: 1 s. Longer ones are split.
const SAMPLES_MAX: usize = AUDIO_RATE as usize;
/// The protocol of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A file.
    File,
    /// HTTP, including HLS.
    Http,
    /// SRT.
    Srt,
    /// A protocol that is implemented in Rust and pushes frames by a [`Feed`].
    Pushed,
}

/// Restricts GStreamer in this process to the elements for this protocol; returns a text for each of these that is not
/// installed. Once per process, before the first intake.
///
/// # Errors
/// GStreamer does not start.
pub fn confine(protocol: Protocol) -> Result<Vec<String>, CodecError> {
    prepare()?;
    Ok(allow::confine(protocol))
}

/// Starts GStreamer and registers the elements `webfetch` and `tsretime`.
pub(super) fn prepare() -> Result<(), CodecError> {
    init()?;
    web::register();
    retime::register();
    Ok(())
}

/// Parameters of an SRT connection.
#[derive(Clone, Copy)]
pub struct SrtCall<'a> {
    /// The address to connect to, or to listen at.
    pub address: SocketAddr,
    /// Listen instead of connecting.
    pub listens: bool,
    /// The latency, which bounds retransmissions.
    pub latency: Duration,
    /// The passphrase of the encryption.
    pub passphrase: Option<&'a str>,
    /// Key length in bytes: 16, 24 or 32.
    pub key_length: u8,
    /// The stream id.
    pub stream: Option<&'a str>,
}

/// A picture with its time.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The picture.
    pub picture: Picture,
    /// Presentation time since the beginning of the source.
    pub pts: Duration,
    /// How long it is shown, if the source says so.
    pub duration: Option<Duration>,
    /// Arrival.
    pub arrival: Timestamp,
    /// Pixel aspect ratio (width, height).
    pub pixel: (u32, u32),
    /// Matrix and range of its colours.
    pub colours: Colours,
}

/// Samples with their time: mono, 48 kHz.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The samples.
    pub samples: Vec<f32>,
    /// Time of the first sample since the beginning of the source.
    pub pts: Duration,
    /// Arrival.
    pub arrival: Timestamp,
}

/// An intake of one source. Dropping it ends the intake.
pub struct Intake {
    shared: Arc<Shared>,
    graphs: Arc<Mutex<Vec<Graph>>>,
}

type Wake = Box<dyn Fn() + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    /// Removes the jumps of the demuxers' tracks.
    rebaser: Arc<Mutex<Rebaser>>,
    /// Signalled when a queue has room, and at the end.
    taken: Condvar,
    wake: Wake,
    /// Jumps of timestamps that were removed by a protocol in Rust, or in MPEG-TS.
    jumps: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    pictures: VecDeque<Shot>,
    sounds: VecDeque<Stretch>,
    video: Track,
    audio: Track,
    /// The pads that take video and audio.
    inlets: [gst::glib::WeakRef<gst::Pad>; 2],
    /// The pads of the source from which these take it.
    outlets: [gst::glib::WeakRef<gst::Pad>; 2],
    /// Graphs whose streams are not all known yet.
    unsettled: usize,
    failed: Option<String>,
    closed: bool,
}

impl State {
    /// The track that a piece takes.
    fn track(&mut self, piece: Piece) -> &mut Track {
        if piece == Piece::Pictures { &mut self.video } else { &mut self.audio }
    }

    /// Whether all streams have ended; the queues may still contain media.
    fn has_ended(&self) -> bool {
        let tracks = [self.video, self.audio];
        let follows = tracks.contains(&Track::Between) && !tracks.contains(&Track::Ended);
        self.unsettled == 0 && !tracks.contains(&Track::Open) && !follows
    }

    /// The source has removed a pad. It does so only if another part follows: pads that have ended remain.
    fn removed(&mut self, pad: &gst::Pad) {
        for (track, outlet) in [&mut self.video, &mut self.audio].into_iter().zip(&self.outlets) {
            if outlet.upgrade().as_ref() == Some(pad) {
                *track = Track::Between;
            }
        }
    }

    fn is_full_of_pictures(&self) -> bool {
        let pixels = |shot: &Shot| u64::from(shot.picture.size().width) * u64::from(shot.picture.size().height);
        let many = self.pictures.len() >= PICTURES_MIN && self.pictures.iter().map(pixels).sum::<u64>() >= PIXELS_MAX;
        many || self.pictures.len() >= PICTURES_MAX
    }
}

/// State of the video or audio of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Track {
    /// None is known.
    #[default]
    Absent,
    /// It is present.
    Open,
    /// Its part of the source has ended, and another part follows (chained Ogg, a discontinuity in HLS).
    Between,
    /// It has ended; the queue may still contain media.
    Ended,
}

impl Intake {
    /// An intake of a file.
    ///
    /// # Errors
    /// An element is not installed, or the file cannot be opened.
    pub fn file(path: &Path, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, CodecError> {
        Self::open(Piece::File, wake, |source| source.set_property("location", path))
    }

    /// An intake of an HTTP URL: a file, an endless stream, or an HLS playlist.
    ///
    /// # Errors
    /// An element is not installed, or the request failed. Waits for the first response.
    pub fn http(url: &str, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, CodecError> {
        Self::open(Piece::Http, wake, |source| {
            let handler = source.dynamic_cast_ref::<gst::URIHandler>().expect("webfetch takes URLs");
            if let Err(error) = handler.set_uri(url) {
                tracing::error!(%error, "webfetch refused a URL");
            }
        })
    }

    /// An intake of an SRT stream. Waits for the connection unless it listens.
    ///
    /// # Errors
    /// An element is not installed, or the connection failed.
    pub fn srt(call: &SrtCall<'_>, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, CodecError> {
        Self::open(Piece::Srt, wake, |source| {
            // The mode is a part of the URI.
            let mode = if call.listens { "listener" } else { "caller" };
            source.set_property("uri", format!("srt://{}?mode={mode}", call.address));
            source.set_property("latency", call.latency.as_millis() as i32);
            if let Some(passphrase) = call.passphrase {
                source.set_property("passphrase", passphrase);
                source.set_property_from_str("pbkeylen", &call.key_length.to_string());
            }
            if let Some(stream) = call.stream {
                source.set_property("streamid", stream);
            }
        })
    }

    /// An intake of feeds, which are opened while it runs.
    ///
    /// # Errors
    /// An element is not installed.
    pub fn fed(wake: impl Fn() + Send + Sync + 'static) -> Result<(Self, Feeder), CodecError> {
        // One for the feeder, which may open a feed.
        let intake = Self::new(wake, 1)?;
        let feeder = Feeder::new(intake.shared.clone(), intake.graphs.clone());
        Ok((intake, feeder))
    }

    fn new(wake: impl Fn() + Send + Sync + 'static, graphs: usize) -> Result<Self, CodecError> {
        prepare()?;
        let state = State { unsettled: graphs, ..State::default() };
        let (state, taken, wake) = (Mutex::new(state), Condvar::new(), Box::new(wake));
        let shared = Shared { state, taken, wake, jumps: Arc::default(), rebaser: Arc::default() };
        Ok(Self { shared: Arc::new(shared), graphs: Arc::default() })
    }

    fn open(
        piece: Piece,
        wake: impl Fn() + Send + Sync + 'static,
        set: impl FnOnce(&gst::Element),
    ) -> Result<Self, CodecError> {
        let intake = Self::new(wake, 1)?;
        let graph = Graph::new(piece)?;
        let source = graph.element("source")?;
        set(&source);
        lengthen_short_tracks(&source);
        begin(&intake.shared, &intake.graphs, graph)?;
        Ok(intake)
    }

    /// The next picture, if there is one.
    pub fn picture(&self) -> Option<Shot> {
        self.shared.take(|state| state.pictures.pop_front())
    }

    /// The next samples, if there are any.
    pub fn sound(&self) -> Option<Stretch> {
        self.shared.take(|state| state.sounds.pop_front())
    }

    /// The state of its video or audio.
    pub fn track(&self, kind: Kind) -> Track {
        let state = self.shared.state.lock();
        match kind {
            Kind::Video => state.video,
            Kind::Audio => state.audio,
        }
    }

    /// Whether all its streams are known.
    pub fn is_settled(&self) -> bool {
        self.shared.state.lock().unsettled == 0
    }

    /// Whether all its streams have ended and the queues are empty.
    pub fn is_over(&self) -> bool {
        let state = self.shared.state.lock();
        state.has_ended() && state.pictures.is_empty() && state.sounds.is_empty()
    }

    /// Whether all its streams have ended; the queues may still contain media.
    pub fn has_ended(&self) -> bool {
        self.shared.state.lock().has_ended()
    }

    /// Why it failed, if it has.
    pub fn failed(&self) -> Option<String> {
        self.shared.state.lock().failed.clone()
    }

    /// Jumps of timestamps that were removed before the decoders.
    pub fn jumps(&self) -> u64 {
        self.shared.jumps.load(Ordering::Relaxed) + self.shared.rebaser.lock().jumps()
    }

    /// Whether the source has a known duration, as a file has.
    pub fn is_finite(&self) -> bool {
        self.graphs.lock().iter().any(|graph| graph.duration().is_some())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        // Before the graphs end, which waits for their threads: these must not wait for the intake.
        self.shared.state.lock().closed = true;
        self.shared.taken.notify_all();
        // A feeder may live longer, and must not keep the graphs.
        self.graphs.lock().clear();
    }
}

/// Changes MP4 files whose short tracks the demuxer would ignore.
fn lengthen_short_tracks(source: &gst::Element) {
    // Both ways of reading: the demuxer reads from files, other sources push.
    for scheduling in [gst::PadProbeType::PULL, gst::PadProbeType::PUSH] {
        let pad = source.static_pad("src").expect("a source has a pad");
        pad.add_probe(gst::PadProbeType::BUFFER | scheduling, |_, info| {
            let is_short = |buffer: &mut gst::Buffer| buffer.map_readable().is_ok_and(|bytes| mp4::has_short(&bytes));
            if let Some(buffer) = info.buffer_mut()
                && is_short(buffer)
                && let Ok(mut bytes) = buffer.make_mut().map_writable()
            {
                mp4::lengthen(&mut bytes);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Starts a graph.
fn begin(shared: &Arc<Shared>, graphs: &Mutex<Vec<Graph>>, graph: Graph) -> Result<(), CodecError> {
    let decode = graph.element("decode")?;
    let (to, branches) = (shared.clone(), graph.branches());
    decode.connect_pad_added(move |_, pad| {
        if let Err(error) = to.attach(pad, &branches) {
            to.fail(error.to_string());
        }
    });
    let to = shared.clone();
    decode.connect_pad_removed(move |_, pad| to.change(|state| state.removed(pad)));
    let to = shared.clone();
    decode.connect_no_more_pads(move |_| to.change(|state| state.unsettled = state.unsettled.saturating_sub(1)));
    let to = shared.clone();
    decode.connect("autoplug-continue", false, move |values| {
        let caps = values.get(2).and_then(|caps| caps.get::<gst::Caps>().ok());
        let allowed = caps.as_ref().and_then(too_large).is_none_or(|size| {
            to.fail(too_large_text(size));
            false
        });
        Some(allowed.to_value())
    });
    let (rebaser, jumps, to) = (shared.rebaser.clone(), shared.jumps.clone(), shared.clone());
    let bin = decode.downcast_ref::<gst::Bin>().expect("decodebin is a bin");
    bin.connect_element_added(move |_, element| match element.downcast_ref::<TsRetime>() {
        Some(element) => element.count_jumps(jumps.clone()),
        None => {
            demuxed::follow(element, &rebaser);
            let to = to.clone();
            sizes::watch(element, move |size| to.fail(too_large_text(size)));
        }
    });
    let to = shared.clone();
    let played = graph.play(move |reason| to.fail(reason));
    let mut graphs = graphs.lock();
    let state = shared.state.lock();
    if state.closed {
        return Err(CodecError::Source("the intake has ended".into()));
    }
    graphs.push(graph);
    // The message on the bus says more than the failed state change.
    match (played, state.failed.clone()) {
        (Err(_), Some(reason)) => Err(CodecError::Source(reason)),
        (played, _) => Ok(played?),
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        (self.wake)();
    }

    fn fail(&self, reason: String) {
        self.change(|state| {
            state.failed.get_or_insert_with(|| words(&reason).to_owned());
        });
    }

    fn take<T>(&self, take: impl FnOnce(&mut State) -> Option<T>) -> Option<T> {
        let taken = take(&mut self.state.lock());
        if taken.is_some() {
            self.taken.notify_all();
        }
        taken
    }

    /// Waits until a queue has room, or the end.
    fn wait_for_room(&self, full: impl Fn(&State) -> bool) {
        let mut state = self.state.lock();
        while full(&state) && !state.closed {
            self.taken.wait(&mut state);
        }
    }

    /// Adds to a queue; false after the end.
    fn put(&self, put: impl FnOnce(&mut State)) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        put(&mut state);
        drop(state);
        (self.wake)();
        true
    }

    /// Attaches the first video and the first audio stream, and those that follow them in another part of the source
    /// (chained Ogg, a new header of MP4). Other streams are discarded.
    fn attach(self: &Arc<Self>, pad: &gst::Pad, branches: &Branches) -> Result<(), PipelineError> {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let name = caps.structure(0).map(|structure| structure.name().to_string()).unwrap_or_default();
        let (index, piece) = match name.as_str() {
            "video/x-raw" => (0, Piece::Pictures),
            "audio/x-raw" => (1, Piece::Sound),
            _ => return branches.attach(pad, Piece::Rest).map(drop),
        };
        let mut state = self.state.lock();
        if *state.track(piece) != Track::Absent {
            let inlet = state.inlets[index].upgrade().filter(|inlet| !inlet.is_linked());
            drop(state);
            return match inlet {
                Some(inlet) => {
                    self.change(|state| {
                        *state.track(piece) = Track::Open;
                        state.outlets[index].set(Some(pad));
                    });
                    piece.relink(pad, &inlet)
                }
                None => branches.attach(pad, Piece::Rest).map(drop),
            };
        }
        *state.track(piece) = Track::Open;
        state.outlets[index].set(Some(pad));
        drop(state);
        let sink = branches.attach(pad, piece)?;
        self.state.lock().inlets[index].set(pad.peer().as_ref());
        let sink = sink.downcast::<AppSink>().expect("these pieces end in an appsink");
        let waiter = self.clone();
        // Not in `new_sample`, which holds the preroll lock: the pipeline would not change to Playing.
        sink.static_pad("sink").expect("a sink has a pad").add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            match piece {
                Piece::Pictures => waiter.wait_for_room(State::is_full_of_pictures),
                _ => waiter.wait_for_room(|state| state.sounds.len() >= SOUNDS_MAX),
            }
            gst::PadProbeReturn::Ok
        });
        let (taker, ender) = (self.clone(), self.clone());
        let mut last = Duration::ZERO;
        sink.set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if taker.sample(&sample, piece, &mut last) {
                        Ok(gst::FlowSuccess::Ok)
                    } else {
                        Err(gst::FlowError::Eos)
                    }
                })
                .eos(move |_| {
                    ender.change(|state| *state.track(piece) = Track::Ended);
                })
                .build(),
        );
        Ok(())
    }

    /// Handles a sample; false after the end. `last` is the end of the sample before.
    fn sample(&self, sample: &gst::Sample, piece: Piece, last: &mut Duration) -> bool {
        let arrival = now();
        let pts = running_time(sample).unwrap_or(*last);
        if piece == Piece::Pictures {
            // A sample that is not a picture is dropped.
            let Some(shot) = shot(sample, pts, arrival) else { return true };
            *last = pts;
            return self.put(|state| state.pictures.push_back(shot));
        }
        let mut pts = pts;
        for part in samples(sample).chunks(SAMPLES_MAX) {
            let stretch = Stretch { samples: part.to_vec(), pts, arrival };
            pts += Duration::from_micros(part.len() as u64 * 1_000_000 / u64::from(AUDIO_RATE));
            if !self.put(|state| state.sounds.push_back(stretch)) {
                return false;
            }
        }
        *last = pts;
        true
    }
}

fn too_large_text(size: Size) -> String {
    format!("a picture of {size} is too large: send at most {LARGEST}")
}

/// The message of an error without the position in the source code that some elements add.
fn words(reason: &str) -> &str {
    let end = reason.find(": src/").or_else(|| reason.find(": ../")).or_else(|| reason.find('\n'));
    reason[..end.unwrap_or(reason.len())].trim_end()
}

fn running_time(sample: &gst::Sample) -> Option<Duration> {
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    let time = segment.to_running_time(sample.buffer()?.pts()?)?;
    Some(Duration::from_nanos(time.nseconds()))
}

fn shot(sample: &gst::Sample, pts: Duration, arrival: Timestamp) -> Option<Shot> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let ratio = info.par();
    let pixel = (u32::try_from(ratio.numer()).ok()?, u32::try_from(ratio.denom()).ok()?);
    let colorimetry = info.colorimetry();
    let matrix = match colorimetry.matrix() {
        // The coefficients of BT.2020 are closer to those of BT.709.
        gst_video::VideoColorMatrix::Bt709 | gst_video::VideoColorMatrix::Bt2020 => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    let full_range = colorimetry.range() == gst_video::VideoColorRange::Range0_255;
    let buffer = sample.buffer_owned()?;
    let duration = buffer.duration().map(|time| Duration::from_nanos(time.nseconds()));
    let picture = Picture::mapped(buffer, &info)?;
    Some(Shot { picture, pts, duration, arrival, pixel, colours: Colours { matrix, full_range } })
}

fn samples(sample: &gst::Sample) -> Vec<f32> {
    let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) else { return Vec::new() };
    // A decoder may output NaN for malformed media, which would stay in a mix.
    let finite =
        |bytes: &[u8; 4]| Some(f32::from_le_bytes(*bytes)).filter(|sample| sample.is_finite()).unwrap_or_default();
    map.as_chunks().0.iter().map(finite).collect()
}

#[cfg(test)]
mod tests;
