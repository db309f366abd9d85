//! The filters of one source, one behind the other.
//!
//! Owns: [`Link`], a filter with its judge and the filter behind it. Does not know: which filters a source has; what
//! happens when one is to be removed. In: [`Frame`]s. Out: filtered frames in the slot of the source, on the thread of
//! the last filter, sound likewise where its voice takes it, and [`Fault`]s by callback or from [`Link::push`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Shared;
use super::judge::Judge;
use super::view::ViewOutput;
use crate::codec::{CodecError, Filtered, MediaFilter, Raw};
use crate::filter::{FilterSpec, Media, Removal};
use crate::link::FromMixer;
use crate::media::{AUDIO_TICK_SAMPLES, Look, Rotation};
use crate::mixer::compose::FrameWriter;
use crate::time::Timestamp;

/// Share of the budget that a filter of sound may take for 20 ms: audio has less time than video.
const SOUND_SHARE: u32 = 10;
/// Most samples that wait to be taken by their voice: 100 ms.
const SOUND_MAX: usize = 5 * AUDIO_TICK_SAMPLES;

/// Filtered samples that wait to be taken.
pub type Samples = Arc<Mutex<VecDeque<f32>>>;

/// A decoded frame on its way to where it is taken from.
#[derive(Clone)]
pub struct Frame {
    /// The picture or sound.
    pub raw: Raw,
    /// When it arrived. The times of a source increase.
    pub arrival: Timestamp,
    /// Where it goes.
    pub to: Target,
}

/// Where a frame goes after its filters.
#[derive(Clone)]
pub enum Target {
    /// Into the slot of its source.
    Slot {
        /// Rotation that remains to be done.
        rotation: Rotation,
        /// It was coded without reference to others.
        is_keyframe: bool,
        /// Stores it.
        writer: Arc<FrameWriter>,
    },
    /// To its voice.
    Voice(Samples),
    /// To the encoders of a view.
    View(Arc<ViewOutput>),
}

impl Frame {
    /// Stores it.
    pub(super) fn store(self) {
        match (self.raw, self.to) {
            (Raw::Picture(picture, colours), Target::Slot { rotation, is_keyframe, writer }) => {
                let look = Look { rotation, colours };
                if is_keyframe {
                    writer.put_keyframe(picture, look, self.arrival);
                } else {
                    writer.put(picture, look, self.arrival);
                }
            }
            (Raw::Picture(picture, _), Target::View(output)) => output.put(picture),
            (Raw::Sound(samples), Target::Voice(waiting)) => {
                let mut waiting = waiting.lock();
                waiting.extend(&*samples);
                let excess = waiting.len().saturating_sub(SOUND_MAX);
                waiting.drain(..excess);
            }
            _ => unreachable!("filters of pictures return pictures, and filters of sound return sound"),
        }
    }
}

/// Why a filter is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) serial: u32,
    pub(super) why: Removal,
    pub(super) detail: String,
}

/// A running filter.
pub(super) struct Link {
    serial: u32,
    filter: MediaFilter<(Timestamp, Target)>,
    judge: Judge,
    /// Frames that have come out.
    came: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

/// The first filter of a chain, which leads to the others.
pub(super) type Chain = Arc<Mutex<Link>>;

impl Link {
    /// Starts the filters; None if there are none. `failed` is called on their threads.
    ///
    /// # Errors
    /// The filter that cannot be started.
    pub(super) fn chain(
        specs: &[FilterSpec],
        shared: &Arc<Shared>,
        failed: impl Fn(Fault) + Clone + Send + 'static,
    ) -> Result<Option<Chain>, Fault> {
        let mut next = None;
        for spec in specs.iter().rev() {
            next = Some(Self::start(spec, shared, next, failed.clone())?);
        }
        Ok(next)
    }

    fn start(
        spec: &FilterSpec,
        shared: &Arc<Shared>,
        next: Option<Chain>,
        failed: impl Fn(Fault) + Send + 'static,
    ) -> Result<Chain, Fault> {
        let serial = spec.serial;
        let came: Arc<AtomicU64> = Arc::default();
        let counter = came.clone();
        let sink = move |filtered| match filtered {
            Filtered::Frame(raw, (arrival, to)) => {
                counter.fetch_add(1, Ordering::Relaxed);
                let frame = Frame { raw, arrival, to };
                let Some(next) = &next else { return frame.store() };
                let fault = next.lock().push(frame);
                fault.into_iter().for_each(&failed);
            }
            Filtered::Failed(detail) => failed(Fault { serial, why: Removal::Failed, detail }),
        };
        let filter = MediaFilter::new(spec, shared.background(spec.image.as_deref()), sink).map_err(|error| {
            let why = if error.is_permanent() { Removal::Unavailable } else { Removal::Failed };
            Fault { serial, why, detail: error.to_string() }
        })?;
        let budget = if spec.media == Media::Audio { shared.budget / SOUND_SHARE } else { shared.budget };
        let judge = Judge::new(budget);
        Ok(Arc::new(Mutex::new(Self { serial, filter, judge, came, shared: shared.clone() })))
    }

    /// Filters a frame; drops it if too many are in the filter. Returns why the filter is to be removed, if it is.
    pub(super) fn push(&mut self, frame: Frame) -> Option<Fault> {
        let serial = self.serial;
        let Frame { raw, arrival, to } = frame;
        match self.filter.push(&raw, arrival, (arrival, to)) {
            Ok(_) => {}
            Err(CodecError::Failed) => {
                let detail = "it has ended".into();
                return Some(Fault { serial, why: Removal::Failed, detail });
            }
            Err(error) => return Some(Fault { serial, why: Removal::Failed, detail: error.to_string() }),
        }
        let judgement = self.judge.pushed(self.came.load(Ordering::Relaxed), self.filter.cpu())?;
        self.shared.counts.add(judgement.frames, judgement.cpu);
        self.shared.outbox.push(FromMixer::FilterLoad(serial, judgement.cpu_per_frame()));
        judgement.removal.map(|(why, detail)| Fault { serial, why, detail })
    }
}
