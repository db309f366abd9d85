//! The audio mixer of a room: every 20 ms the full mix for all silent listeners, and a mix-minus for each talker.
//!
//! Owns: the microphones' jitter buffers and decoders, the mixes and their encoders. Does not know: threads, clocks,
//! sockets. In: packets, the [`MixPlan`], and the number and time of each tick. Out: one [`AudioTick`] per tick.
//!
//! Rules
//! 1. Tick `n` covers the 20 ms from epoch + n * 20 ms and has the RTP timestamp n * 960 (mod 2^32), late or not.
//! 2. A source is in the sum only while its gate is open. All listeners without an open gate share one encode.
//! 3. A talker gets the sum without its own sources (mix-minus). While no other participant talks, this mix is silence:
//!    a few frames begin the pause, then the talker is sent nothing, and nothing is encoded. The talker returns to the
//!    full mix only after a hangover, because each switch costs bits and a new encoder.
//! 4. A mix without listeners is not encoded, and neither is a quality without listeners. A thin listener gets packets
//!    of several ticks, and changes its quality only where such a packet begins, so that no tick is missing or
//!    repeated.

pub(super) mod audio_loop;
mod mix;
mod voice;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::audio::{SILENCE, level_dbov, minus, sum};
use crate::id::{ParticipantId, SourceId};
use crate::link::AudioTick;
use crate::media::{AUDIO_TICK_SAMPLES, SoundQuality, Sounds, SourcePacket};
use crate::plan::{MixPlan, SourceSpec};
use crate::time::Timestamp;

use self::mix::{Mix, Tick};
use self::voice::Voice;

/// Ticks for which a mix-minus continues after its talker's gate has closed (500 ms).
const HANGOVER_TICKS: u32 = 25;
/// Interval of level reports, in ticks (100 ms).
const LEVEL_TICKS: u64 = 5;

/// Ticks that continue after the last source has left, so that every receiver gets the begin of the pause (1 s).
const IDLE_TICKS: u64 = 50;

/// Most participants named in the contributing sources of a packet: 15 (RFC 3550 section 5.1), and the listener itself.
const HEARD_MAX: usize = 16;

/// Participants with their levels in -dBov; 127 is silence.
pub type Levels = Vec<(ParticipantId, u8)>;

/// Counters of an audio mixer since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SoundStats {
    /// Ticks run.
    pub ticks: u64,
    /// Frames encoded in all mixes.
    pub encoded: u64,
    /// Packets concealed, of all sources.
    pub concealed: u64,
    /// Malformed packets of all sources.
    pub broken: u64,
    /// Time from arrival to mixing, average of the audible sources; the last value while no source is audible.
    pub lag: Option<Duration>,
}

/// The audio mixer of one room.
#[derive(Debug)]
pub struct SoundMixer {
    sounds: Sounds,
    specs: BTreeMap<SourceId, SourceSpec>,
    /// The sources of the plan, and those that fade out.
    voices: BTreeMap<SourceId, Voice>,
    plan: MixPlan,
    /// Listeners and their qualities as planned.
    listeners: BTreeMap<ParticipantId, SoundQuality>,
    /// Listeners and their present qualities, which change only where a thin packet begins.
    hearing: BTreeMap<ParticipantId, SoundQuality>,
    /// The number of the thin packet that contains the last tick.
    packet: u64,
    everyone: Mix,
    mix_minus: BTreeMap<ParticipantId, MixMinus>,
    /// Loudest levels of the participants that were audible since the current thin packet began.
    heard: BTreeMap<ParticipantId, u8>,
    /// Ticks since a source was audible.
    silent: u64,
    /// The last reported levels were not all silence.
    reported_levels: bool,
    /// Counters of the mixer itself and of the voices that have ended.
    gone: SoundStats,
}

/// The mix for one talker.
#[derive(Debug)]
struct MixMinus {
    mix: Mix,
    /// Ticks since the gate closed.
    silent: u32,
}

impl SoundMixer {
    /// A mixer without sources and listeners.
    pub fn new(sounds: Sounds) -> Self {
        Self {
            sounds,
            specs: BTreeMap::new(),
            voices: BTreeMap::new(),
            plan: MixPlan::default(),
            listeners: BTreeMap::new(),
            hearing: BTreeMap::new(),
            packet: 0,
            everyone: Mix::new(sounds),
            mix_minus: BTreeMap::new(),
            heard: BTreeMap::new(),
            silent: u64::MAX,
            reported_levels: false,
            gone: SoundStats::default(),
        }
    }

    /// Adds a microphone, or changes its codec.
    pub fn set_source(&mut self, spec: SourceSpec) {
        if self.specs.insert(spec.source, spec).is_some_and(|known| known != spec)
            && let Some(voice) = self.voices.remove(&spec.source)
        {
            self.count(&voice);
        }
        self.follow_plan();
    }

    /// Removes a microphone: it fades out.
    pub fn remove_source(&mut self, source: SourceId) {
        self.specs.remove(&source);
        self.follow_plan();
    }

    /// Sets which sources are mixed for which listeners.
    pub fn set_plan(&mut self, plan: MixPlan) {
        self.listeners = plan.listeners.iter().map(|listener| (listener.participant, listener.quality)).collect();
        self.hearing.retain(|participant, _| self.listeners.contains_key(participant));
        self.mix_minus.retain(|participant, _| self.listeners.contains_key(participant));
        self.plan = plan;
        self.follow_plan();
    }

    /// Handles a packet; drops it if its source is not in the plan.
    pub fn insert(&mut self, source: SourceId, packet: SourcePacket, now: Timestamp) {
        if let Some(voice) = self.voices.get_mut(&source) {
            voice.insert(packet, now);
        }
    }

    /// Whether ticks may stop until the next plan: there are no listeners, or no sources.
    pub fn is_idle(&self) -> bool {
        !self.has_listeners() || self.voices.is_empty() && self.silent > IDLE_TICKS
    }

    /// Mixes tick `n` at `now`; returns the levels too if a report of them is due.
    pub fn tick(&mut self, n: u64, now: Timestamp) -> (AudioTick, Option<Levels>) {
        self.gone.ticks += 1;
        let mut heard: Vec<(ParticipantId, Box<Tick>)> = Vec::new();
        for voice in self.voices.values_mut() {
            if let Some(tick) = voice.tick(now) {
                heard.push((voice.participant(), tick));
            }
        }
        let lags: Vec<Duration> = self.voices.values().filter_map(Voice::lag).collect();
        if !lags.is_empty() {
            self.gone.lag = Some(lags.iter().sum::<Duration>() / lags.len() as u32);
        }
        let total = added(heard.iter());
        let speaking: BTreeSet<ParticipantId> = heard.iter().map(|(participant, _)| *participant).collect();
        self.silent = if speaking.is_empty() { self.silent.saturating_add(1) } else { 0 };
        let levels = n.is_multiple_of(LEVEL_TICKS).then(|| self.levels()).flatten();
        self.forget_leavers();
        self.follow_listeners(n);
        self.follow_speakers(&speaking);

        let thin = self.hearing.iter().filter(|(_, quality)| **quality == SoundQuality::Thin);
        let mut out = AudioTick { thin_listeners: thin.map(|(listener, _)| *listener).collect(), ..Default::default() };
        (out.heard, out.heard_thin) = self.name(n, &heard);
        for (&participant, mix_minus) in &mut self.mix_minus {
            let own = added(heard.iter().filter(|(speaker, _)| *speaker == participant));
            let mut others = [0.0; AUDIO_TICK_SAMPLES];
            minus(&total, &own, &mut others);
            mix_minus.mix.limit(n, others);
            let mut packet = None;
            for quality in SoundQuality::ALL {
                if self.hearing.get(&participant) == Some(&quality) {
                    packet = mix_minus.mix.encode(quality, &mut self.gone.encoded);
                } else {
                    mix_minus.mix.rest(quality);
                }
            }
            out.mix_minus.push((participant, packet));
        }
        self.everyone.limit(n, total);
        for (quality, packet) in [(SoundQuality::Full, &mut out.everyone), (SoundQuality::Thin, &mut out.thin)] {
            let mut shared = self.hearing.iter().filter(|(listener, _)| !self.mix_minus.contains_key(listener));
            let recorded = self.plan.outputs && quality == SoundQuality::Full;
            if recorded || shared.any(|(_, hears)| *hears == quality) {
                *packet = self.everyone.encode(quality, &mut self.gone.encoded);
            } else {
                self.everyone.rest(quality);
            }
        }
        (out, levels)
    }

    /// The counters.
    pub fn stats(&self) -> SoundStats {
        let mut stats = self.gone;
        for voice in self.voices.values() {
            stats.concealed += voice.concealed();
            stats.broken += voice.broken();
        }
        stats
    }

    /// Whether there is a listener or an output.
    fn has_listeners(&self) -> bool {
        self.plan.outputs || !self.listeners.is_empty()
    }

    /// Creates and removes voices as the plan says.
    fn follow_plan(&mut self) {
        if !self.has_listeners() {
            for voice in std::mem::take(&mut self.voices).values() {
                self.count(voice);
            }
            self.everyone = Mix::new(self.sounds);
            return;
        }
        let mut left: BTreeSet<SourceId> = self.voices.keys().copied().collect();
        for input in &self.plan.sources {
            let Some(spec) = self.specs.get(&input.source) else { continue };
            left.remove(&input.source);
            let voice = match self.voices.entry(input.source) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => match Voice::new(spec) {
                    Ok(voice) => new.insert(voice),
                    Err(error) => {
                        tracing::warn!(source = %input.source, %error, "audio source cannot be decoded");
                        continue;
                    }
                },
            };
            voice.set_gain(input.gain_db);
        }
        for source in left {
            self.voices.get_mut(&source).expect("its key was listed").leave();
        }
    }

    fn forget_leavers(&mut self) {
        let leavers: Vec<SourceId> = self.voices.iter().filter(|(_, v)| v.is_leaving()).map(|(&s, _)| s).collect();
        for source in leavers {
            if let Some(voice) = self.voices.remove(&source) {
                self.count(&voice);
            }
        }
    }

    /// Applies planned qualities where a thin packet begins. A new listener waits for that only if it is thin.
    fn follow_listeners(&mut self, n: u64) {
        let packet = n / u64::from(self.sounds.thin.ticks());
        let begins = std::mem::replace(&mut self.packet, packet) != packet;
        for (&participant, &quality) in &self.listeners {
            match self.hearing.entry(participant) {
                Entry::Occupied(mut hears) if begins && *hears.get() != quality => {
                    hears.insert(quality);
                    self.everyone.join();
                }
                Entry::Vacant(new) if begins || quality == SoundQuality::Full => {
                    new.insert(quality);
                }
                _ => {}
            }
        }
    }

    /// Creates a mix-minus for each new talker, and removes it after the hangover.
    fn follow_speakers(&mut self, speaking: &BTreeSet<ParticipantId>) {
        for &participant in speaking.iter().filter(|participant| self.hearing.contains_key(participant)) {
            let mix_minus = self.mix_minus.entry(participant);
            mix_minus.or_insert_with(|| MixMinus { mix: self.everyone.branch(), silent: 0 }).silent = 0;
        }
        let before = self.mix_minus.len();
        self.mix_minus.retain(|participant, mix_minus| {
            mix_minus.silent += u32::from(!speaking.contains(participant));
            mix_minus.silent <= HANGOVER_TICKS
        });
        if self.mix_minus.len() < before {
            self.everyone.join();
        }
    }

    /// The audible participants of tick `n`, and those of the thin packet that ends with it.
    fn name(&mut self, n: u64, heard: &[(ParticipantId, Box<Tick>)]) -> (Levels, Levels) {
        let ticks = u64::from(self.sounds.thin.ticks());
        if n.is_multiple_of(ticks) {
            self.heard.clear();
        }
        let mut now = BTreeMap::new();
        for (participant, tick) in heard {
            let level = level_dbov(&tick[..]);
            for named in [&mut now, &mut self.heard] {
                named.entry(*participant).and_modify(|loudest| *loudest = level.min(*loudest)).or_insert(level);
            }
        }
        let thin = if (n + 1).is_multiple_of(ticks) { loudest(&self.heard) } else { Levels::new() };
        (loudest(&now), thin)
    }

    /// The loudest level of each participant since the last report; None if all are silent and were so before.
    fn levels(&mut self) -> Option<Levels> {
        let mut levels: BTreeMap<ParticipantId, u8> = BTreeMap::new();
        for voice in self.voices.values_mut() {
            let loudest = levels.entry(voice.participant()).or_insert(SILENCE);
            *loudest = voice.take_level().min(*loudest);
        }
        let anyone = levels.values().any(|&level| level < SILENCE);
        let report = anyone || self.reported_levels;
        self.reported_levels = anyone;
        report.then(|| levels.into_iter().collect())
    }

    fn count(&mut self, voice: &Voice) {
        self.gone.concealed += voice.concealed();
        self.gone.broken += voice.broken();
    }
}

/// The loudest [`HEARD_MAX`] participants, in order of their ids.
fn loudest(heard: &BTreeMap<ParticipantId, u8>) -> Levels {
    let mut named: Levels = heard.iter().map(|(participant, level)| (*participant, *level)).collect();
    if named.len() > HEARD_MAX {
        named.sort_by_key(|(_, level)| *level);
        named.truncate(HEARD_MAX);
        named.sort_by_key(|(participant, _)| *participant);
    }
    named
}

fn added<'a>(heard: impl Iterator<Item = &'a (ParticipantId, Box<Tick>)>) -> Tick {
    let ticks: Vec<&[f32]> = heard.map(|(_, tick)| &tick[..]).collect();
    let mut total = [0.0; AUDIO_TICK_SAMPLES];
    sum(&ticks, &mut total);
    total
}

#[cfg(test)]
mod tests;
