//! Intake: a source of any container and codec goes in, pictures and sound come out, each with its time.
//!
//! Owns: the graph that demuxes and decodes, the bounded queues behind it, and what may be made of a stranger's bytes
//! ([`confine`], the limit on a picture's size). Does not know: the clock: media comes out as fast as it is taken; who it
//! is for. In: a file, a URL or a [`Feed`]. Out by [`Intake::picture`] and [`Intake::sound`], which never wait; `wake` is
//! called whenever there is news.

mod allow;
mod feed;
mod web;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use gstreamer_video as gst_video;
use parking_lot::{Condvar, Mutex};

pub use self::feed::{Feed, FeedFormat, Feeder};
pub use self::web::{Exchange, Fetch, Fetched, set_fetch};
use super::picture::Picture;
use super::{CodecError, init};
use crate::media::{AUDIO_RATE, Colours, Kind, Matrix, Size};
use crate::pipeline::PipelineError;
use crate::pipeline::graph::{Branches, Graph, Piece};
use crate::time::{Timestamp, now};

/// Pictures waiting: a second at 30 a second, of smaller ones.
const PICTURES_MAX: usize = 32;
/// Pixels of all of them; a few pictures may wait however large they are.
const PIXELS_MAX: u64 = 32 << 20;
/// See [`PIXELS_MAX`].
const PICTURES_MIN: usize = 4;
/// Pieces of sound waiting; over half a second of AAC's frames.
const SOUNDS_MAX: usize = 32;
/// Most samples in one piece of sound: a second. Longer ones are cut.
const SAMPLES_MAX: usize = AUDIO_RATE as usize;
/// The largest picture decoded: UHD, upright or lying. Checked where the parser says it, before a decoder is made.
const LARGEST: Size = Size::new(4096, 2304);

/// How a source is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a file.
    File,
    /// By HTTP, HLS included.
    Http,
    /// By SRT.
    Srt,
    /// By a protocol spoken in Rust, which feeds it in.
    Fed,
}

/// Takes everything out of this process that a source fetched in this way does not need; says what is missing on this
/// machine, in words. Once a process, before the first intake.
///
/// # Errors
/// GStreamer does not start, or lacks what every process needs.
pub fn confine(way: Way) -> Result<Vec<String>, CodecError> {
    prepare()?;
    Ok(allow::confine(way))
}

/// Starts GStreamer and makes our own element known.
pub(super) fn prepare() -> Result<(), CodecError> {
    init()?;
    web::register();
    Ok(())
}

/// How a stream comes by SRT.
#[derive(Clone, Copy)]
pub struct SrtCall<'a> {
    /// Theirs to connect to, or ours to listen at.
    pub address: SocketAddr,
    /// They connect to us.
    pub listens: bool,
    /// How long lost packets may take to be sent again.
    pub latency: Duration,
    /// What the stream is encrypted with.
    pub passphrase: Option<&'a str>,
    /// Length of the key made of it, in bytes: 16, 24 or 32.
    pub key_length: u8,
    /// What is wanted of the listener.
    pub stream: Option<&'a str>,
}

/// A picture of a source.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The picture.
    pub picture: Picture,
    /// When it is shown, from the beginning of the source.
    pub pts: Duration,
    /// When it was here.
    pub arrival: Timestamp,
    /// Width and height of one pixel, as a ratio.
    pub pixel: (u32, u32),
    /// What its samples mean.
    pub colours: Colours,
}

/// A piece of a source's sound: mono, 48 kHz.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The samples.
    pub samples: Vec<f32>,
    /// When its first sample is heard, from the beginning of the source.
    pub pts: Duration,
    /// When it was here.
    pub arrival: Timestamp,
}

/// A source being taken in. Dropping it ends it.
pub struct Intake {
    shared: Arc<Shared>,
    graphs: Arc<Mutex<Vec<Graph>>>,
}

type Wake = Box<dyn Fn() + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    /// Room in a queue, or the end.
    taken: Condvar,
    wake: Wake,
}

#[derive(Default)]
struct State {
    pictures: VecDeque<Shot>,
    sounds: VecDeque<Stretch>,
    video: Track,
    audio: Track,
    /// Graphs of which not all streams are known yet.
    unsettled: usize,
    failed: Option<String>,
    closed: bool,
}

impl State {
    fn is_full_of_pictures(&self) -> bool {
        let pixels = |shot: &Shot| u64::from(shot.picture.size().width) * u64::from(shot.picture.size().height);
        let many = self.pictures.len() >= PICTURES_MIN && self.pictures.iter().map(pixels).sum::<u64>() >= PIXELS_MAX;
        many || self.pictures.len() >= PICTURES_MAX
    }
}

/// What is known of the picture or the sound of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Track {
    /// The source has none, as far as is known.
    #[default]
    Absent,
    /// It comes.
    Open,
    /// It came to its end; pieces may still wait.
    Ended,
}

impl Intake {
    /// Takes a file in.
    ///
    /// # Errors
    /// What is missing on this machine, or a file that cannot be opened.
    pub fn file(path: &Path, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, CodecError> {
        Self::open(Piece::File, wake, |source| source.set_property("location", path))
    }

    /// Takes in what an HTTP URL names: a file, an endless stream, or an HLS playlist.
    ///
    /// # Errors
    /// What is missing on this machine, or a URL that cannot be begun with. Waits for the first answer.
    pub fn http(url: &str, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, CodecError> {
        Self::open(Piece::Http, wake, |source| {
            let handler = source.dynamic_cast_ref::<gst::URIHandler>().expect("webfetch takes URLs");
            if let Err(error) = handler.set_uri(url) {
                tracing::error!(%error, "webfetch takes every URL");
            }
        })
    }

    /// Takes in what comes by SRT. Waits for the connection where it is made by us.
    ///
    /// # Errors
    /// What is missing on this machine, or nobody answers.
    pub fn srt(call: &SrtCall<'_>, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, CodecError> {
        Self::open(Piece::Srt, wake, |source| {
            // Only here the element learns which address is whose.
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

    /// Takes in what somebody feeds, who finds out what it is while it comes.
    ///
    /// # Errors
    /// What is missing on this machine.
    pub fn fed(wake: impl Fn() + Send + Sync + 'static) -> Result<(Self, Feeder), CodecError> {
        // The one is the feeder itself: it may still open a feed.
        let intake = Self::new(wake, 1)?;
        let feeder = Feeder::new(intake.shared.clone(), intake.graphs.clone());
        Ok((intake, feeder))
    }

    fn new(wake: impl Fn() + Send + Sync + 'static, graphs: usize) -> Result<Self, CodecError> {
        prepare()?;
        let state = State { unsettled: graphs, ..State::default() };
        let shared = Shared { state: Mutex::new(state), taken: Condvar::new(), wake: Box::new(wake) };
        Ok(Self { shared: Arc::new(shared), graphs: Arc::default() })
    }

    fn open(
        piece: Piece,
        wake: impl Fn() + Send + Sync + 'static,
        set: impl FnOnce(&gst::Element),
    ) -> Result<Self, CodecError> {
        let intake = Self::new(wake, 1)?;
        let graph = Graph::new(piece)?;
        set(&graph.element("source")?);
        begin(&intake.shared, &intake.graphs, graph)?;
        Ok(intake)
    }

    /// The next picture, where one is here.
    pub fn picture(&self) -> Option<Shot> {
        self.shared.take(|state| state.pictures.pop_front())
    }

    /// The next piece of sound, where one is here.
    pub fn sound(&self) -> Option<Stretch> {
        self.shared.take(|state| state.sounds.pop_front())
    }

    /// What is known of its picture or its sound.
    pub fn track(&self, kind: Kind) -> Track {
        let state = self.shared.state.lock();
        match kind {
            Kind::Video => state.video,
            Kind::Audio => state.audio,
        }
    }

    /// All its streams are known.
    pub fn is_settled(&self) -> bool {
        self.shared.state.lock().unsettled == 0
    }

    /// All its streams have ended and everything has been taken.
    pub fn is_over(&self) -> bool {
        let state = self.shared.state.lock();
        let ended = [state.video, state.audio].iter().all(|track| *track != Track::Open);
        state.unsettled == 0 && ended && state.pictures.is_empty() && state.sounds.is_empty()
    }

    /// Nothing more is coming in; what is here may still be taken.
    pub fn has_ended(&self) -> bool {
        let state = self.shared.state.lock();
        state.unsettled == 0 && [state.video, state.audio].iter().all(|track| *track != Track::Open)
    }

    /// What broke it, where something did.
    pub fn failed(&self) -> Option<String> {
        self.shared.state.lock().failed.clone()
    }

    /// Whether it has an end by itself: a file has, a camera has none.
    pub fn is_finite(&self) -> bool {
        self.graphs.lock().iter().any(|graph| graph.duration().is_some())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        // Before the graphs are ended, which waits for their threads: those must not wait for us.
        self.shared.state.lock().closed = true;
        self.shared.taken.notify_all();
        // A feeder may live on for a while, and must not keep them.
        self.graphs.lock().clear();
    }
}

/// Plays a graph whose streams become pictures and sound.
fn begin(shared: &Arc<Shared>, graphs: &Mutex<Vec<Graph>>, graph: Graph) -> Result<(), CodecError> {
    let decode = graph.element("decode")?;
    let (to, branches) = (shared.clone(), graph.branches());
    decode.connect_pad_added(move |_, pad| {
        if let Err(error) = to.attach(pad, &branches) {
            to.fail(error.to_string());
        }
    });
    let to = shared.clone();
    decode.connect_no_more_pads(move |_| to.change(|state| state.unsettled = state.unsettled.saturating_sub(1)));
    let to = shared.clone();
    decode.connect("autoplug-continue", false, move |values| {
        let caps = values.get(2).and_then(|caps| caps.get::<gst::Caps>().ok());
        let allowed = caps.as_ref().and_then(too_large).is_none_or(|size| {
            to.fail(format!("a picture of {size} is too large: send at most {LARGEST}"));
            false
        });
        Some(allowed.to_value())
    });
    let to = shared.clone();
    let played = graph.play(move |reason| to.fail(reason));
    let mut graphs = graphs.lock();
    let state = shared.state.lock();
    if state.closed {
        return Err(CodecError::Source("it is over".into()));
    }
    graphs.push(graph);
    // What the bus says is more than that it does not start.
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

    /// Waits for room in a queue, or the end.
    fn wait_for_room(&self, full: impl Fn(&State) -> bool) {
        let mut state = self.state.lock();
        while full(&state) && !state.closed {
            self.taken.wait(&mut state);
        }
    }

    /// Puts something into a queue; false when nobody wants it any more.
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

    /// The first picture and the first sound are taken, the rest is not looked at.
    fn attach(self: &Arc<Self>, pad: &gst::Pad, branches: &Branches) -> Result<(), PipelineError> {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let name = caps.structure(0).map(|structure| structure.name().to_string()).unwrap_or_default();
        let mut state = self.state.lock();
        let (track, piece) = match name.as_str() {
            "video/x-raw" => (&mut state.video, Piece::Pictures),
            "audio/x-raw" => (&mut state.audio, Piece::Sound),
            _ => {
                drop(state);
                return branches.attach(pad, Piece::Rest).map(drop);
            }
        };
        if *track != Track::Absent {
            drop(state);
            return branches.attach(pad, Piece::Rest).map(drop);
        }
        *track = Track::Open;
        drop(state);
        let sink = branches.attach(pad, piece)?;
        let sink = sink.downcast::<AppSink>().expect("these pieces end in an appsink");
        let waiter = self.clone();
        // Not in `new_sample`: a sink holds its preroll lock meanwhile, and would keep its pipeline from ever being Playing.
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
                    ender.change(|state| match piece {
                        Piece::Pictures => state.video = Track::Ended,
                        _ => state.audio = Track::Ended,
                    });
                })
                .build(),
        );
        Ok(())
    }

    /// Takes a sample; false when nobody wants any more. `last` is where the sample before ended.
    fn sample(&self, sample: &gst::Sample, piece: Piece, last: &mut Duration) -> bool {
        let arrival = now();
        let pts = running_time(sample).unwrap_or(*last);
        if piece == Piece::Pictures {
            // What is no picture is left out; the next one may be.
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

/// What people are told of an error: without the place in the source code where some elements met it.
fn words(reason: &str) -> &str {
    let end = reason.find(": src/").or_else(|| reason.find(": ../")).or_else(|| reason.find('\n'));
    reason[..end.unwrap_or(reason.len())].trim_end()
}

/// The size that caps announce, where it is not allowed.
fn too_large(caps: &gst::Caps) -> Option<Size> {
    let structure = caps.structure(0)?;
    let side = |name| structure.get::<i32>(name).ok().map(|side| side.max(0) as u32);
    let size = Size::new(side("width")?, side("height")?);
    let (long, short) = (size.width.max(size.height), size.width.min(size.height));
    (long > LARGEST.width || short > LARGEST.height).then_some(size)
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
        // BT.2020's weights are between the two, nearer to BT.709's.
        gst_video::VideoColorMatrix::Bt709 | gst_video::VideoColorMatrix::Bt2020 => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    let full_range = colorimetry.range() == gst_video::VideoColorRange::Range0_255;
    let picture = Picture::mapped(sample.buffer_owned()?, &info)?;
    Some(Shot { picture, pts, arrival, pixel, colours: Colours { matrix, full_range } })
}

fn samples(sample: &gst::Sample) -> Vec<f32> {
    let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) else { return Vec::new() };
    // What a decoder makes of garbage may be no number; in a mix it would be heard for ever.
    let finite =
        |bytes: &[u8; 4]| Some(f32::from_le_bytes(*bytes)).filter(|sample| sample.is_finite()).unwrap_or_default();
    map.as_chunks().0.iter().map(finite).collect()
}

#[cfg(test)]
mod tests;
