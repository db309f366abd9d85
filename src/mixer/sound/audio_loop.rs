//! The audio tick's loop: waits for the next tick, mixes it, sends it off; stands still while nobody listens or sends.

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

/// Packets that may wait for the next tick: ten seconds of ten microphones.
const PACKETS_MAX: usize = 5_000;
/// Late ticks that are caught up with (100 ms, as much as receivers buffer); more are left out.
const CATCH_UP: u64 = 5;

/// What the loop is told.
#[derive(Debug)]
pub(in crate::mixer) enum SoundInput {
    /// A microphone begins or changes.
    Source(SourceSpec),
    /// A source is gone.
    Gone(SourceId),
    /// Who is heard by whom.
    Plan(MixPlan),
    /// A packet, and when it came.
    Packet(SourceId, SourcePacket, Timestamp),
}

/// The loop's inbox, and what it has counted.
#[derive(Debug, Default)]
pub(in crate::mixer) struct SoundInbox {
    inputs: Vec<SoundInput>,
    /// The loop stands still; packets would only grow old.
    idle: bool,
    closed: bool,
    stats: SoundStats,
}

impl SoundInbox {
    /// Adds what the loop takes in with its next tick; packets are dropped while it stands still or hangs.
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

    /// What the mixer has done since it was made.
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
            tracing::debug!(skipped = tick.skipped, "audio ticks are late");
        }
        last = Some(tick.n);
        let (sound, levels) = mixer.tick(tick.n, now());
        let sound = (!sound.is_empty()).then_some(FromMixer::Audio(sound));
        outbox.push_all(sound.into_iter().chain(levels.map(FromMixer::Levels)));
        inbox.lock().stats = mixer.stats();
    }
}

/// Waits until the time of the tick, or for any input where no tick is due; None when the inbox was closed.
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
