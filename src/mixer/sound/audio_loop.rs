//! The audio loop: waits for the next tick, mixes it, puts it into the outbox. It stops while there are no listeners or
//! sources.
//!
//! Owns: the [`SoundMixer`] and the loop's inbox. Does not know: what is mixed. In: [`SoundInput`]. Out: the
//! [`Outbox`].

use std::sync::Arc;
use std::time::Duration;

use super::{SoundMixer, SoundStats};
use crate::id::SourceId;
use crate::link::FromMixer;
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Sounds, SourcePacket};
use crate::mixer::outbox::Outbox;
use crate::mixer::ticks::{Busy, Grid, Watched, due};
use crate::plan::{MixPlan, SourceSpec};
use crate::time::{Timestamp, now};

/// Most inputs that wait for the next tick: 10 s of ten microphones.
const PACKETS_MAX: usize = 5_000;
/// Late ticks that are run one after the other (100 ms, as much as receivers buffer); if more are late, they are
/// skipped.
const CATCH_UP: u64 = 5;

/// An input of the loop.
#[derive(Debug)]
pub(in crate::mixer) enum SoundInput {
    /// A microphone begins, or changes its codec.
    Source(SourceSpec),
    /// A microphone has ended.
    Gone(SourceId),
    /// Which sources are mixed for which listeners.
    Plan(MixPlan),
    /// A packet, and its arrival.
    Packet(SourceId, SourcePacket, Timestamp),
}

/// The inbox of the loop, and its counters.
#[derive(Debug, Default)]
pub(in crate::mixer) struct SoundInbox {
    inputs: Vec<SoundInput>,
    /// The loop is stopped: packets would be stale when it continues.
    idle: bool,
    closed: bool,
    stats: SoundStats,
}

impl SoundInbox {
    /// Adds an input for the next tick; packets are dropped while the loop is stopped or too many wait.
    pub(in crate::mixer) fn push(inbox: &Watched<Self>, input: SoundInput) {
        if let SoundInput::Packet(..) = input {
            let mut inbox = inbox.lock();
            if !inbox.idle && inbox.inputs.len() < PACKETS_MAX {
                inbox.inputs.push(input);
            }
            return;
        }
        inbox.change(|inbox| {
            inbox.inputs.push(input);
            inbox.idle = false;
        });
    }

    /// Ends the loop.
    pub(in crate::mixer) fn close(inbox: &Watched<Self>) {
        inbox.change(|inbox| inbox.closed = true);
    }

    /// The counters of the audio mixer.
    pub(in crate::mixer) fn stats(&self) -> SoundStats {
        self.stats
    }
}

/// Ticks of 20 ms.
struct AudioGrid;

impl Grid for AudioGrid {
    fn index(&self, since: Duration) -> u64 {
        since.as_micros() as u64 * u64::from(AUDIO_RATE) / (AUDIO_TICK_SAMPLES as u64 * 1_000_000)
    }

    fn start(&self, n: u64) -> Duration {
        Duration::from_micros(n * AUDIO_TICK_SAMPLES as u64 * 1_000_000 / u64::from(AUDIO_RATE))
    }
}

/// Runs until the inbox is closed.
pub(in crate::mixer) fn run(
    epoch: Timestamp,
    sounds: Sounds,
    inbox: &Watched<SoundInbox>,
    outbox: &Arc<Outbox>,
    busy: &Busy,
) {
    let mut mixer = SoundMixer::new(sounds);
    let mut last = None;
    loop {
        let tick = if mixer.is_idle() {
            last = None;
            None
        } else {
            Some(due(&AudioGrid, epoch, last, CATCH_UP, now()))
        };
        busy.end();
        let Some(inputs) = wait(inbox, tick.map(|tick| tick.at)) else { return };
        busy.begin(now());
        for input in inputs {
            match input {
                SoundInput::Source(spec) => mixer.set_source(spec),
                SoundInput::Gone(source) => mixer.remove_source(source),
                SoundInput::Plan(plan) => mixer.set_plan(plan),
                SoundInput::Packet(source, packet, came) => mixer.insert(source, packet, came),
            }
        }
        let Some(tick) = tick else { continue };
        if tick.skipped > 0 {
            tracing::debug!(skipped = tick.skipped, "audio ticks skipped");
        }
        last = Some(tick.n);
        let (sound, levels) = mixer.tick(tick.n, now());
        let sound = (!sound.is_empty()).then_some(FromMixer::Audio(sound));
        outbox.push_all(sound.into_iter().chain(levels.map(FromMixer::Levels)));
        inbox.lock().stats = mixer.stats();
    }
}

/// Waits until the time of the tick, or for any input if no tick is due; None when the inbox was closed.
fn wait(inbox: &Watched<SoundInbox>, until: Option<Timestamp>) -> Option<Vec<SoundInput>> {
    let mut state = inbox.lock();
    state.idle = until.is_none() && state.inputs.is_empty();
    loop {
        if state.closed {
            return None;
        }
        match until {
            None if !state.inputs.is_empty() => break,
            Some(at) if now() >= at => break,
            _ => inbox.wait(&mut state, until),
        }
    }
    state.idle = false;
    Some(std::mem::take(&mut state.inputs))
}
