//! The sound of a room: every 20 ms the sum of those who speak for everyone, and without oneself for those who speak.
//!
//! Owns: the microphones' jitter buffers and decoders, the mixes and their encoders. Does not know: threads, clocks,
//! sockets: [`SoundMixer::tick`] is told which tick it is and what time. In: packets and the [`MixPlan`]. Out: one
//! [`AudioTick`] each tick.
//!
//! Rules
//! 1. Tick `n` stands for the 20 ms from epoch + n * 20 ms and has the RTP timestamp n * 960 (mod 2^32), late or not.
//! 2. A source is in the sum only while its gate is open. So whoever is silent hears the same: one encode for them all.
//! 3. Whoever speaks gets the sum without any source of his. While nobody else speaks this is silence, told to him as
//!    every pause is, by a few frames; afterwards it costs no encode and he is sent nothing. He does not go back to the
//!    shared mix before a hangover is over, because each going to and fro costs bits and a new encoder.
//! 4. A mix that nobody hears is not encoded, nor is a quality of it. Whoever hears it thin gets packets of several ticks;
//!    he goes to and fro between the qualities where such a packet begins, so that he misses nothing and hears nothing twice.

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

/// Ticks for which one's own mix goes on after one's last word (500 ms).
const HANGOVER_TICKS: u32 = 25;
/// Ticks from one report of levels to the next (100 ms).
const LEVEL_TICKS: u64 = 5;

/// Ticks that go on after the last source has left, so that all are told of the pause (1 s).
const IDLE_TICKS: u64 = 50;

/// Most who are named as heard in a packet: as many as RTP can name, and the listener itself.
const HEARD_MAX: usize = 16;

/// Who is how loud: -dBov, 127 for silence.
pub type Levels = Vec<(ParticipantId, u8)>;

/// What a sound mixer has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SoundStats {
    /// Ticks run.
    pub ticks: u64,
    /// Frames encoded, all mixes.
    pub encoded: u64,
    /// Packet durations concealed, all sources.
    pub concealed: u64,
    /// Packets that were not sound, all sources.
    pub broken: u64,
    /// How long what is heard waited since it arrived, on average; of what was heard last while nothing is.
    pub lag: Option<Duration>,
}

/// The sound of one room.
#[derive(Debug)]
pub struct SoundMixer {
    sounds: Sounds,
    specs: BTreeMap<SourceId, SourceSpec>,
    /// The sources of the plan, and those that are just fading out of it.
    voices: BTreeMap<SourceId, Voice>,
    plan: MixPlan,
    /// Who listens by the plan, and the quality that he is to hear.
    listeners: BTreeMap<ParticipantId, SoundQuality>,
    /// Who listens now, and the quality that he hears.
    hearing: BTreeMap<ParticipantId, SoundQuality>,
    /// The thin packet that the last tick is in, counted from tick 0.
    packet: u64,
    everyone: Mix,
    own: BTreeMap<ParticipantId, Own>,
    /// Who was heard since the thin packet began that the last tick is in, at their loudest.
    heard: BTreeMap<ParticipantId, u8>,
    /// Ticks since anybody was heard.
    silent: u64,
    /// The last levels told were not all silence.
    told_levels: bool,
    /// Counted for the whole mixer, and for the voices that are gone.
    gone: SoundStats,
}

/// The mix of one who speaks.
#[derive(Debug)]
struct Own {
    mix: Mix,
    /// Ticks since the last word.
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
            own: BTreeMap::new(),
            heard: BTreeMap::new(),
            silent: u64::MAX,
            told_levels: false,
            gone: SoundStats::default(),
        }
    }

    /// Makes a microphone known, or that it has changed its codec.
    pub fn set_source(&mut self, spec: SourceSpec) {
        if self.specs.insert(spec.source, spec).is_some_and(|known| known != spec)
            && let Some(voice) = self.voices.remove(&spec.source)
        {
            self.count(&voice);
        }
        self.follow_plan();
    }

    /// A microphone is gone: it fades out.
    pub fn remove_source(&mut self, source: SourceId) {
        self.specs.remove(&source);
        self.follow_plan();
    }

    /// Who is heard by whom from now on.
    pub fn set_plan(&mut self, plan: MixPlan) {
        self.listeners = plan.listeners.iter().map(|listener| (listener.participant, listener.quality)).collect();
        self.hearing.retain(|participant, _| self.listeners.contains_key(participant));
        self.own.retain(|participant, _| self.listeners.contains_key(participant));
        self.plan = plan;
        self.follow_plan();
    }

    /// Takes in a packet. One of a source that nobody hears is dropped.
    pub fn insert(&mut self, source: SourceId, packet: SourcePacket, now: Timestamp) {
        if let Some(voice) = self.voices.get_mut(&source) {
            voice.insert(packet, now);
        }
    }

    /// Nothing will be heard until a plan brings listeners and sources: ticks may stop.
    pub fn is_idle(&self) -> bool {
        !self.is_heard() || self.voices.is_empty() && self.silent > IDLE_TICKS
    }

    /// Mixes tick `n`; `now` is when. Every so many ticks it also tells the levels.
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
        for (&participant, own) in &mut self.own {
            let his = added(heard.iter().filter(|(speaker, _)| *speaker == participant));
            let mut others = [0.0; AUDIO_TICK_SAMPLES];
            minus(&total, &his, &mut others);
            own.mix.limit(n, others);
            let mut packet = None;
            for quality in SoundQuality::ALL {
                if self.hearing.get(&participant) == Some(&quality) {
                    packet = own.mix.encode(quality, &mut self.gone.encoded);
                } else {
                    own.mix.rest(quality);
                }
            }
            out.own.push((participant, packet));
        }
        self.everyone.limit(n, total);
        for (quality, packet) in [(SoundQuality::Full, &mut out.everyone), (SoundQuality::Thin, &mut out.thin)] {
            let mut shared = self.hearing.iter().filter(|(listener, _)| !self.own.contains_key(listener));
            let recorded = self.plan.outputs && quality == SoundQuality::Full;
            if recorded || shared.any(|(_, hears)| *hears == quality) {
                *packet = self.everyone.encode(quality, &mut self.gone.encoded);
            } else {
                self.everyone.rest(quality);
            }
        }
        (out, levels)
    }

    /// What has been done so far.
    pub fn stats(&self) -> SoundStats {
        let mut stats = self.gone;
        for voice in self.voices.values() {
            stats.concealed += voice.concealed();
            stats.broken += voice.broken();
        }
        stats
    }

    /// Whether anybody, or an output, listens.
    fn is_heard(&self) -> bool {
        self.plan.outputs || !self.listeners.is_empty()
    }

    /// Brings the voices in line with the plan.
    fn follow_plan(&mut self) {
        if !self.is_heard() {
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
                        tracing::warn!(source = %input.source, %error, "a source cannot be heard");
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

    /// Gives listeners the quality of the plan where a thin packet begins; who is new waits for that only to hear thin.
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

    /// Gives a mix of their own to those who begin to speak, and takes it from those who ended long enough ago.
    fn follow_speakers(&mut self, speaking: &BTreeSet<ParticipantId>) {
        for &participant in speaking.iter().filter(|participant| self.hearing.contains_key(participant)) {
            let own = self.own.entry(participant);
            own.or_insert_with(|| Own { mix: self.everyone.branch(), silent: 0 }).silent = 0;
        }
        let before = self.own.len();
        self.own.retain(|participant, own| {
            own.silent += u32::from(!speaking.contains(participant));
            own.silent <= HANGOVER_TICKS
        });
        if self.own.len() < before {
            self.everyone.join();
        }
    }

    /// Who is heard in tick `n`, and in the thin packet that ends with it.
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

    /// The loudest of each participant's sources since the last time; None while there is nothing new to tell.
    fn levels(&mut self) -> Option<Levels> {
        let mut levels: BTreeMap<ParticipantId, u8> = BTreeMap::new();
        for voice in self.voices.values_mut() {
            let loudest = levels.entry(voice.participant()).or_insert(SILENCE);
            *loudest = voice.take_level().min(*loudest);
        }
        let anyone = levels.values().any(|&level| level < SILENCE);
        let tell = anyone || self.told_levels;
        self.told_levels = anyone;
        tell.then(|| levels.into_iter().collect())
    }

    fn count(&mut self, voice: &Voice) {
        self.gone.concealed += voice.concealed();
        self.gone.broken += voice.broken();
    }
}

/// As many as may be named, in order of their ids.
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
