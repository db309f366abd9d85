//! The audio mixer of a room: every 20 ms the full mix for all silent listeners, and a mix-minus for each talker.
//!
//! Owns: the microphones' jitter buffers and decoders, the mixes and their encoders. Does not know: clocks, sockets,
//! why the effort is reduced ([`load`]). In: packets, the [`MixPlan`], the [`AudioEffort`], and the number and time of
//! each tick. Out: one [`AudioTick`] per tick.
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
//! 5. While the effort limits the number of talkers, only the loudest are in the sum ([`talkers`]). The others get the
//!    full mix, since it does not contain them, and share its encode.
//! 6. In a large tick several threads decode and encode ([`workers`]). The result does not depend on their number.
//! 7. While nobody talks and no source sends packets, there are no ticks.

pub(super) mod audio_loop;
mod filtered;
mod load;
mod mix;
mod talkers;
mod voice;
mod workers;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::audio::{SILENCE, fade_in, fade_out, level_dbov, minus, sum};
use crate::id::{ParticipantId, SourceId};
use crate::link::AudioTick;
use crate::media::{AUDIO_TICK_SAMPLES, AudioEffort, EncodedPacket, SoundQuality, Sounds, SourcePacket};
use crate::mixer::filter::Stage;
use crate::mixer::lip_sync::LipSync;
use crate::plan::{MixPlan, SourceSpec};
use crate::time::Timestamp;

use self::mix::{Mix, PACKET_TICKS, Tick};
use self::talkers::{Place, Talkers};
use self::voice::{FADE, Voice};
use self::workers::Workers;

/// Ticks for which a mix-minus continues after its talker's gate has closed (500 ms).
const HANGOVER_TICKS: u32 = 25;
/// The same for a talker that is no longer in the mix because others are louder: until no packet of the full mix
/// contains it.
const LEFT_OUT_TICKS: u32 = PACKET_TICKS as u32;
/// Interval of level reports, in ticks (100 ms).
const LEVEL_TICKS: u64 = 5;

/// Ticks that continue after the last source has left or is silent, so that every receiver gets the begin of the pause
/// (1 s).
const IDLE_TICKS: u64 = 50;

/// Most participants named in the contributing sources of a packet: 15 (RFC 3550 section 5.1), and the listener itself.
const HEARD_MAX: usize = 16;

/// Estimated time to decode a frame of one source, and to mix and encode a tick of one mix.
const DECODE_TIME: Duration = Duration::from_micros(35);
const ENCODE_TIME: Duration = Duration::from_micros(200);

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
    /// Talkers left out of the mix, of all ticks.
    pub left_out: u64,
}

/// The audio mixer of one room.
#[derive(Debug)]
pub struct SoundMixer {
    sounds: Sounds,
    specs: BTreeMap<SourceId, (SourceSpec, Arc<LipSync>)>,
    /// The filters of sources that have any.
    filters: BTreeMap<SourceId, Arc<Stage>>,
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
    effort: AudioEffort,
    talkers: Talkers,
    workers: Workers,
    /// Loudest levels of the participants that were audible since the current thin packet began.
    heard: BTreeMap<ParticipantId, u8>,
    /// Ticks since a source was audible.
    silent: u64,
    /// Ticks to run before the mixer may rest.
    awake: u64,
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

/// The sound of one source in a tick.
#[derive(Debug)]
struct Heard {
    participant: ParticipantId,
    /// In -dBov.
    level: u8,
    tick: Box<Tick>,
}

/// One mix of a tick.
#[derive(Debug)]
struct Job<'a> {
    /// The talker whose sources it omits; None for the full mix.
    talker: Option<ParticipantId>,
    mix: &'a mut Mix,
    /// Whether a listener has each quality, in the order of [`SoundQuality::ALL`].
    wanted: [bool; 2],
    packets: [Option<EncodedPacket>; 2],
    encoded: u64,
}

impl<'a> Job<'a> {
    fn new(talker: Option<ParticipantId>, mix: &'a mut Mix, wanted: impl Fn(SoundQuality) -> bool) -> Self {
        Self { talker, mix, wanted: SoundQuality::ALL.map(wanted), packets: [None, None], encoded: 0 }
    }

    /// Mixes and encodes tick `n`.
    fn run(&mut self, n: u64, total: &Tick, heard: &[Heard], complexity: u8) {
        let mut sound = *total;
        if let Some(talker) = self.talker {
            let own = added(heard.iter().filter(|heard| heard.participant == talker));
            minus(total, &own, &mut sound);
        }
        self.mix.limit(n, sound);
        self.mix.set_complexity(complexity);
        for ((quality, wanted), packet) in SoundQuality::ALL.into_iter().zip(self.wanted).zip(&mut self.packets) {
            if wanted {
                *packet = self.mix.encode(quality, &mut self.encoded);
            } else {
                self.mix.rest(quality);
            }
        }
    }
}

impl SoundMixer {
    /// A mixer without sources and listeners, which uses at most this number of threads.
    pub fn new(sounds: Sounds, threads: u32) -> Self {
        Self {
            sounds,
            specs: BTreeMap::new(),
            filters: BTreeMap::new(),
            voices: BTreeMap::new(),
            plan: MixPlan::default(),
            listeners: BTreeMap::new(),
            hearing: BTreeMap::new(),
            packet: 0,
            everyone: Mix::new(sounds),
            mix_minus: BTreeMap::new(),
            effort: AudioEffort::FULL,
            talkers: Talkers::default(),
            workers: Workers::new(threads),
            heard: BTreeMap::new(),
            silent: u64::MAX,
            awake: 0,
            reported_levels: false,
            gone: SoundStats::default(),
        }
    }

    /// Adds a microphone, or changes its codec. `lip_sync` is that of its participant.
    pub fn set_source(&mut self, spec: SourceSpec, lip_sync: Arc<LipSync>) {
        if self.specs.insert(spec.source, (spec, lip_sync)).is_some_and(|(known, _)| known != spec)
            && let Some(voice) = self.voices.remove(&spec.source)
        {
            self.count(&voice);
        }
        self.follow_plan();
    }

    /// Removes a microphone: it fades out.
    pub fn remove_source(&mut self, source: SourceId) {
        self.specs.remove(&source);
        self.filters.remove(&source);
        self.follow_plan();
    }

    /// Sets the filters of a source; None for none.
    pub fn set_filters(&mut self, source: SourceId, stage: Option<Arc<Stage>>) {
        if let Some(voice) = self.voices.get_mut(&source) {
            voice.set_filters(stage.as_ref());
        }
        match stage {
            Some(stage) => drop(self.filters.insert(source, stage)),
            None => drop(self.filters.remove(&source)),
        }
    }

    /// Sets which sources are mixed for which listeners.
    pub fn set_plan(&mut self, plan: MixPlan) {
        self.listeners = plan.listeners.iter().map(|listener| (listener.participant, listener.quality)).collect();
        self.hearing.retain(|participant, _| self.listeners.contains_key(participant));
        self.mix_minus.retain(|participant, _| self.listeners.contains_key(participant));
        self.plan = plan;
        self.follow_plan();
        // A new listener gets a first packet within this time.
        self.awake = IDLE_TICKS;
    }

    /// Handles a packet; drops it if its source is not in the plan.
    pub fn insert(&mut self, source: SourceId, packet: SourcePacket, now: Timestamp) {
        if let Some(voice) = self.voices.get_mut(&source) {
            voice.insert(packet, now);
        }
    }

    /// Sets the effort from the next tick on.
    pub fn set_effort(&mut self, effort: AudioEffort) {
        self.effort = effort;
    }

    /// The number of talkers in the last tick, in the mix or outside.
    pub fn talkers(&self) -> usize {
        self.talkers.count()
    }

    /// Whether ticks may stop until the next plan: there are no listeners, or no sources.
    pub fn is_idle(&self) -> bool {
        !self.has_listeners() || self.voices.is_empty() && self.silent > IDLE_TICKS
    }

    /// Whether ticks may stop until the next packet or plan: all sources are silent and have sent nothing for a while.
    /// Outputs get all ticks.
    pub fn is_resting(&self) -> bool {
        !self.plan.outputs
            && self.awake == 0
            && self.silent > IDLE_TICKS
            && self.mix_minus.is_empty()
            && !self.reported_levels
            && self.voices.values().all(Voice::is_asleep)
    }

    /// Mixes tick `n`, which begins at `at`, at `now`; returns the levels too if a report of them is due.
    pub fn tick(&mut self, n: u64, at: Timestamp, now: Timestamp) -> (AudioTick, Option<Levels>) {
        self.gone.ticks += 1;
        self.awake = self.awake.saturating_sub(1);
        let mut heard = self.decode(at, now);
        let left_out = self.leave_out(&mut heard);
        let speaking: BTreeSet<ParticipantId> = heard.iter().map(|heard| heard.participant).collect();
        self.silent = if speaking.is_empty() { self.silent.saturating_add(1) } else { 0 };
        let levels = n.is_multiple_of(LEVEL_TICKS).then(|| self.levels()).flatten();
        self.forget_leavers();
        self.follow_listeners(n);
        self.follow_speakers(&speaking, &left_out);

        let thin = self.hearing.iter().filter(|(_, quality)| **quality == SoundQuality::Thin);
        let mut out = AudioTick { thin_listeners: thin.map(|(listener, _)| *listener).collect(), ..Default::default() };
        (out.heard, out.heard_thin) = self.name(n, &heard);
        self.encode(n, &heard, &mut out);
        (out, levels)
    }

    /// Decodes the next 20 ms of all sources; returns the sound of the audible ones.
    fn decode(&mut self, at: Timestamp, now: Timestamp) -> Vec<Heard> {
        let mut voices: Vec<_> = self.voices.values_mut().map(|voice| (voice, None)).collect();
        self.workers.run(&mut voices, DECODE_TIME, |(voice, heard)| {
            let participant = voice.participant();
            *heard = voice.tick(at, now).map(|tick| Heard { participant, level: level_dbov(&tick[..]), tick });
        });
        voices.into_iter().filter_map(|(_, heard)| heard).collect()
    }

    /// Removes the talkers for whom there is no place in the mix, with fades; returns them.
    fn leave_out(&mut self, heard: &mut Vec<Heard>) -> BTreeSet<ParticipantId> {
        let mut levels: BTreeMap<ParticipantId, u8> = BTreeMap::new();
        for heard in &*heard {
            let loudest = levels.entry(heard.participant).or_insert(SILENCE);
            *loudest = heard.level.min(*loudest);
        }
        let places = self.talkers.place(&levels, self.effort.talkers_max.map(usize::from));
        heard.retain_mut(|heard| {
            match places[&heard.participant] {
                Place::Mixed => {}
                Place::Entering => fade_in(&mut heard.tick[..FADE]),
                Place::Leaving => fade_out(&mut heard.tick[..]),
                Place::Outside => return false,
            }
            true
        });
        let left_out = places.into_iter().filter(|(_, place)| *place == Place::Outside);
        let left_out: BTreeSet<ParticipantId> = left_out.map(|(participant, _)| participant).collect();
        self.gone.left_out += left_out.len() as u64;
        left_out
    }

    /// Mixes and encodes all mixes that have listeners.
    fn encode(&mut self, n: u64, heard: &[Heard], out: &mut AudioTick) {
        let shared: BTreeSet<SoundQuality> = self
            .hearing
            .iter()
            .filter(|(listener, _)| !self.mix_minus.contains_key(listener))
            .map(|(_, quality)| *quality)
            .collect();
        let outputs = self.plan.outputs;
        let everyone = Job::new(None, &mut self.everyone, |quality| {
            outputs && quality == SoundQuality::Full || shared.contains(&quality)
        });
        let mut jobs = vec![everyone];
        for (participant, mix_minus) in &mut self.mix_minus {
            let hears = self.hearing.get(participant).copied();
            jobs.push(Job::new(Some(*participant), &mut mix_minus.mix, |quality| hears == Some(quality)));
        }
        let (total, complexity) = (added(heard.iter()), self.effort.opus_complexity);
        self.workers.run(&mut jobs, ENCODE_TIME, |job| job.run(n, &total, heard, complexity));
        for Job { talker, packets: [full, thin], encoded, .. } in jobs {
            self.gone.encoded += encoded;
            match talker {
                None => (out.everyone, out.thin) = (full, thin),
                Some(talker) => out.mix_minus.push((talker, full.or(thin))),
            }
        }
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
            let Some((spec, lip_sync)) = self.specs.get(&input.source) else { continue };
            left.remove(&input.source);
            let voice = match self.voices.entry(input.source) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => match Voice::new(spec, lip_sync.clone()) {
                    Ok(voice) => new.insert(voice),
                    Err(error) => {
                        tracing::warn!(source = %input.source, %error, "audio source cannot be decoded");
                        continue;
                    }
                },
            };
            voice.set_gain(input.gain_db);
            voice.set_filters(self.filters.get(&input.source));
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

    /// Creates a mix-minus for each new talker in the mix, and removes it after the hangover.
    fn follow_speakers(&mut self, speaking: &BTreeSet<ParticipantId>, left_out: &BTreeSet<ParticipantId>) {
        for &participant in speaking.iter().filter(|participant| self.hearing.contains_key(participant)) {
            let mix_minus = self.mix_minus.entry(participant);
            mix_minus.or_insert_with(|| MixMinus { mix: self.everyone.branch(), silent: 0 }).silent = 0;
        }
        let before = self.mix_minus.len();
        self.mix_minus.retain(|participant, mix_minus| {
            mix_minus.silent += u32::from(!speaking.contains(participant));
            mix_minus.silent <= if left_out.contains(participant) { LEFT_OUT_TICKS } else { HANGOVER_TICKS }
        });
        if self.mix_minus.len() < before {
            self.everyone.join();
        }
    }

    /// The audible participants of tick `n`, and those of the thin packet that ends with it.
    fn name(&mut self, n: u64, heard: &[Heard]) -> (Levels, Levels) {
        let ticks = u64::from(self.sounds.thin.ticks());
        if n.is_multiple_of(ticks) {
            self.heard.clear();
        }
        let mut now = BTreeMap::new();
        for Heard { participant, level, .. } in heard {
            for named in [&mut now, &mut self.heard] {
                named.entry(*participant).and_modify(|loudest| *loudest = *level.min(loudest)).or_insert(*level);
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

fn added<'a>(heard: impl Iterator<Item = &'a Heard>) -> Tick {
    let ticks: Vec<&[f32]> = heard.map(|heard| &heard.tick[..]).collect();
    let mut total = [0.0; AUDIO_TICK_SAMPLES];
    sum(&ticks, &mut total);
    total
}

#[cfg(test)]
mod tests;
