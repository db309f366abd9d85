//! The audio loop: waits for the next tick, mixes it, puts it into the outbox. It stops while there are no listeners or
//! sources, and rests until the next packet while no source sends.
//!
//! Owns: the [`SoundMixer`], its [`LoadControl`] and the loop's inbox. Does not know: what is mixed. In:
//! [`SoundInput`]. Out: the [`Outbox`], and [`AudioCounts`].

use std::sync::Arc;
use std::time::Duration;

use super::load::LoadControl;
use super::workers::prefer_this_thread;
use super::{SoundMixer, SoundStats};
use crate::id::SourceId;
use crate::link::FromMixer;
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, AudioEffort, Sounds, SourcePacket};
use crate::mixer::filter::Stage;
use crate::mixer::lip_sync::LipSync;
use crate::mixer::outbox::Outbox;
use crate::mixer::ticks::{Busy, Grid, Watched, due};
use crate::plan::{MixPlan, SourceSpec};
use crate::time::{Timestamp, now};

/// Most inputs that wait for the next tick: 10 s of ten microphones.
const PACKETS_MAX: usize = 5_000;
/// Late ticks that are run one after the other (100 ms, as much as receivers buffer); if more are late, they are
/// skipped.
const CATCH_UP: u64 = 5;
/// A tick that begins later than this after its time counts as late: half a tick.
const LATE: Duration = Duration::from_millis(10);

/// An input of the loop.
#[derive(Debug)]
pub(in crate::mixer) enum SoundInput {
    /// A microphone begins, or changes its codec.
    Source(SourceSpec, Arc<LipSync>),
    /// A microphone has ended.
    Gone(SourceId),
    /// The filters of a microphone; None for none.
    Filters(SourceId, Option<Arc<Stage>>),
    /// Which sources are mixed for which listeners.
    Plan(MixPlan),
    /// A packet, and its arrival.
    Packet(SourceId, SourcePacket, Timestamp),
}

/// Counters of the loop since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::mixer) struct AudioCounts {
    /// Counters of the mixer.
    pub(in crate::mixer) sound: SoundStats,
    /// Ticks that began late.
    pub(in crate::mixer) late: u64,
    /// Ticks skipped because the loop was late.
    pub(in crate::mixer) skipped: u64,
    /// Ticks with reduced effort.
    pub(in crate::mixer) reduced: u64,
    /// The present effort.
    pub(in crate::mixer) effort: AudioEffort,
}

/// The inbox of the loop, and its counters.
#[derive(Debug, Default)]
pub(in crate::mixer) struct SoundInbox {
    inputs: Vec<SoundInput>,
    /// The loop is stopped: packets would be stale when it continues.
    idle: bool,
    /// The loop rests: the next packet wakes it.
    resting: bool,
    closed: bool,
    counts: AudioCounts,
}

impl SoundInbox {
    /// Adds an input for the next tick; packets are dropped while the loop is stopped or too many wait.
    pub(in crate::mixer) fn push(inbox: &Watched<Self>, input: SoundInput) {
        if let SoundInput::Packet(..) = input {
            let mut state = inbox.lock();
            if !state.idle && state.inputs.len() < PACKETS_MAX {
                state.inputs.push(input);
            }
            if std::mem::take(&mut state.resting) {
                drop(state);
                inbox.wake();
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

    /// The counters of the loop.
    pub(in crate::mixer) fn counts(&self) -> AudioCounts {
        self.counts
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

/// Runs until the inbox is closed, with the help of at most `threads` threads.
pub(in crate::mixer) fn run(
    epoch: Timestamp,
    sounds: Sounds,
    threads: u32,
    inbox: &Watched<SoundInbox>,
    outbox: &Arc<Outbox>,
    busy: &Busy,
) {
    prefer_this_thread();
    let mut mixer = SoundMixer::new(sounds, threads);
    let (mut control, mut counts) = (LoadControl::default(), AudioCounts::default());
    let mut last = None;
    loop {
        let is_idle = mixer.is_idle();
        let rests = !is_idle && mixer.is_resting();
        let tick = if is_idle || rests {
            last = None;
            // No load: the next tick begins with full effort.
            control = LoadControl::default();
            set_effort(&mut mixer, &mut counts, AudioEffort::FULL);
            None
        } else {
            Some(due(&AudioGrid, epoch, last, CATCH_UP, now()))
        };
        busy.end();
        let Some(inputs) = wait(inbox, counts, tick.map(|tick| tick.at), rests) else { return };
        let begun = now();
        busy.begin(begun);
        for input in inputs {
            match input {
                SoundInput::Source(spec, lip_sync) => mixer.set_source(spec, lip_sync),
                SoundInput::Gone(source) => mixer.remove_source(source),
                SoundInput::Filters(source, stage) => mixer.set_filters(source, stage),
                SoundInput::Plan(plan) => mixer.set_plan(plan),
                SoundInput::Packet(source, packet, came) => mixer.insert(source, packet, came),
            }
        }
        let Some(tick) = tick else { continue };
        counts.skipped += tick.skipped;
        counts.late += u64::from(begun.since(tick.at) > LATE);
        last = Some(tick.n);
        let (sound, levels) = mixer.tick(tick.n, tick.at, now());
        let sound = (!sound.is_empty()).then_some(FromMixer::Audio(sound));
        outbox.push_audio(sound.into_iter().chain(levels.map(FromMixer::Levels)));
        counts.sound = mixer.stats();
        counts.reduced += u64::from(counts.effort != AudioEffort::FULL);
        let ended = now();
        let effort = control.update(ended.since(begun), mixer.talkers(), ended);
        set_effort(&mut mixer, &mut counts, effort);
    }
}

/// Changes the effort, and logs that.
fn set_effort(mixer: &mut SoundMixer, counts: &mut AudioCounts, effort: AudioEffort) {
    if std::mem::replace(&mut counts.effort, effort) == effort {
        return;
    }
    mixer.set_effort(effort);
    let AudioEffort { opus_complexity, talkers_max } = effort;
    if effort == AudioEffort::FULL {
        tracing::info!("audio quality is full again");
    } else {
        tracing::warn!(opus_complexity, ?talkers_max, "cores are busy: audio quality reduced");
    }
}

/// Publishes the counters, then waits until the time of the tick, or for any input if no tick is due; None when the
/// inbox was closed. Packets are inputs only if the loop `rests`; otherwise they are dropped while no tick is due.
fn wait(
    inbox: &Watched<SoundInbox>,
    counts: AudioCounts,
    until: Option<Timestamp>,
    rests: bool,
) -> Option<Vec<SoundInput>> {
    let mut state = inbox.lock();
    state.counts = counts;
    state.idle = until.is_none() && !rests && state.inputs.is_empty();
    loop {
        if state.closed {
            return None;
        }
        match until {
            None if !state.inputs.is_empty() => break,
            Some(at) if now() >= at => break,
            _ => {
                state.resting = rests;
                inbox.wait(&mut state, until);
            }
        }
    }
    (state.idle, state.resting) = (false, false);
    Some(std::mem::take(&mut state.inputs))
}
