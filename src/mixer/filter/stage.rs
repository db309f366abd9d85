//! The filters of one source, between its decoder and its frame slot or voice; or of one view, between its compositor
//! and its encoders.
//!
//! Owns: which filters the source has, and their change while it sends. Does not know: decoders, tiles, mixes. In:
//! the list of filters, and frames. Out: stored frames; [`FromMixer::FilterRemoved`] for a filter that has failed.
//!
//! Rules
//! 1. Without filters a frame is stored at once, on the thread of the decoder.
//! 2. Filters are made on a thread of their own. Until they run, those before go on. If no frame was shown before, none
//!    is shown: a source that begins with filters is never seen without them.
//! 3. A filter that fails or is too slow is removed. The others are started anew, and no frame is shown meanwhile; if
//!    there are none, the source is shown as it is.
//! 4. The last picture is filtered again after a change: a shared screen may send no other one for a long time.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Shared;
use super::chain::{Chain, Fault, Frame, Link};
use crate::codec::Raw;
use crate::filter::{FilterSpec, Removal};
use crate::link::FromMixer;
use crate::mixer::builder::Building;

/// The filters of a source or view.
pub struct Stage {
    /// Its name, for logs.
    owner: String,
    shared: Arc<Shared>,
    me: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    specs: Vec<FilterSpec>,
    path: Path,
    /// Counts the changes of `specs`.
    version: u64,
    /// Dropping it would cancel it.
    job: Option<Building<()>>,
    /// The last picture, as it was decoded.
    last: Option<Frame>,
    /// A frame was stored since the source began or was shown.
    has_begun: bool,
}

/// Where frames go.
#[derive(Default)]
enum Path {
    /// Where they are taken from.
    #[default]
    Direct,
    /// Nowhere: filters are being made.
    Closed,
    /// Into the first filter.
    Filtered(Chain),
}

impl State {
    /// Filters the last frame again; returns it if there are no filters, to be stored without the lock.
    fn repeat(&self) -> (Option<Frame>, Option<Fault>) {
        match (&self.path, &self.last) {
            (Path::Direct, last) => (last.clone(), None),
            (Path::Filtered(chain), Some(frame)) => (None, chain.lock().push(frame.clone())),
            (Path::Closed, _) | (Path::Filtered(_), None) => (None, None),
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stage({})", self.owner)
    }
}

impl Stage {
    pub(super) fn new(owner: String, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { owner, shared, me: me.clone(), state: Mutex::default() })
    }

    /// Filters a frame and stores it. Does not wait for a filter.
    pub fn put(&self, frame: Frame) {
        let fault = {
            let mut state = self.state.lock();
            state.has_begun = true;
            if let Raw::Picture(..) = frame.raw {
                state.last = Some(frame.clone());
            }
            match &state.path {
                Path::Direct => {
                    drop(state);
                    return frame.store();
                }
                Path::Closed => None,
                Path::Filtered(chain) => chain.lock().push(frame),
            }
        };
        fault.into_iter().for_each(|fault| self.remove(fault));
    }

    /// Forgets the last frame: the source is hidden.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        (state.last, state.has_begun) = (None, false);
        if matches!(state.path, Path::Direct) && !state.specs.is_empty() {
            state.path = Path::Closed;
        }
    }

    /// Sets the filters, in the order in which they are applied.
    pub(super) fn set(&self, specs: Vec<FilterSpec>) {
        let mut state = self.state.lock();
        if state.specs == specs {
            return;
        }
        state.specs = specs;
        if !state.has_begun && matches!(state.path, Path::Direct) {
            state.path = Path::Closed;
        }
        let (frame, fault) = self.change(&mut state);
        drop(state);
        self.finish(frame, fault);
    }

    /// Filters the last frame again: an image has changed.
    pub(super) fn repeat(&self) {
        let state = self.state.lock();
        if let Path::Filtered(_) = state.path {
            let (frame, fault) = state.repeat();
            drop(state);
            self.finish(frame, fault);
        }
    }

    /// Removes a filter, unless it was removed before.
    fn remove(&self, fault: Fault) {
        let mut state = self.state.lock();
        let Some(at) = state.specs.iter().position(|spec| spec.serial == fault.serial) else { return };
        let FilterSpec { name, .. } = state.specs.remove(at);
        state.path = Path::Closed;
        let change = self.change(&mut state);
        drop(state);
        let Fault { serial, why, detail } = fault;
        tracing::warn!(of = self.owner, filter = name, ?why, detail, "filter removed");
        self.shared.counts.removed();
        self.shared.outbox.push(FromMixer::FilterRemoved(serial, why, detail));
        self.finish(change.0, change.1);
    }

    /// The filters have changed: begins to make them.
    fn change(&self, state: &mut State) -> (Option<Frame>, Option<Fault>) {
        state.version += 1;
        state.job = None;
        let Some(first) = state.specs.first() else {
            state.path = Path::Direct;
            return state.repeat();
        };
        let serial = first.serial;
        let (me, version, specs, shared) = (self.me.clone(), state.version, state.specs.clone(), self.shared.clone());
        let make = move || {
            let stage = me.clone();
            let failed = move |fault| {
                if let Some(stage) = stage.upgrade() {
                    stage.remove(fault);
                }
            };
            let made = Link::chain(&specs, &shared, failed);
            if let Some(stage) = me.upgrade() {
                stage.install(version, made);
            }
            Ok(())
        };
        match self.shared.builder().build(make, || {}) {
            Ok(job) => {
                state.job = Some(job);
                (None, None)
            }
            Err(error) => (None, Some(Fault { serial, why: Removal::Unavailable, detail: error.to_string() })),
        }
    }

    /// The filters were made; they are dropped if others are wanted by now.
    fn install(&self, version: u64, made: Result<Option<Chain>, Fault>) {
        let mut state = self.state.lock();
        if state.version != version {
            return;
        }
        let (frame, fault) = match made {
            Ok(chain) => {
                state.path = chain.map_or(Path::Direct, Path::Filtered);
                state.repeat()
            }
            Err(fault) => (None, Some(fault)),
        };
        drop(state);
        self.finish(frame, fault);
    }

    fn finish(&self, frame: Option<Frame>, fault: Option<Fault>) {
        frame.into_iter().for_each(Frame::store);
        fault.into_iter().for_each(|fault| self.remove(fault));
    }
}
