//! The filters of one voice.
//!
//! Owns: the samples that wait, and the tick by which filtered sound is late. Does not know: the filters
//! ([`crate::mixer::filter`]). In: the ticks of a voice; out: its filtered ticks, each one tick later. Filters run on
//! threads of their own, and the audio loop does not wait for them: they have 20 ms for a tick.

use std::sync::Arc;

use super::mix::Tick;
use super::voice::FADE;
use crate::audio::fade_in;
use crate::codec::Raw;
use crate::media::AUDIO_TICK_SAMPLES;
use crate::mixer::filter::{Frame, Samples, Stage, Target};
use crate::time::Timestamp;

/// The filters of a voice.
#[derive(Debug)]
pub(super) struct FilteredVoice {
    stage: Arc<Stage>,
    samples: Samples,
    /// The last tick went into the filters.
    fed: bool,
    /// The last tick came out of them; otherwise the next one is faded in.
    sounding: bool,
}

impl FilteredVoice {
    pub(super) fn new(stage: Arc<Stage>) -> Self {
        Self { stage, samples: Samples::default(), fed: false, sounding: false }
    }

    /// Whether these are its filters.
    pub(super) fn is(&self, stage: &Arc<Stage>) -> bool {
        Arc::ptr_eq(&self.stage, stage)
    }

    /// Whether a tick is in the filters.
    pub(super) fn is_fed(&self) -> bool {
        self.fed
    }

    /// Filters a tick; returns the one before. A tick that is not there in time is silent.
    pub(super) fn tick(&mut self, tick: Option<Box<Tick>>, now: Timestamp) -> Option<Box<Tick>> {
        let is_due = std::mem::replace(&mut self.fed, tick.is_some());
        if !is_due {
            // What came too late before a pause.
            self.samples.lock().clear();
        }
        if let Some(tick) = tick {
            let to = Target::Voice(self.samples.clone());
            self.stage.put(Frame { raw: Raw::Sound(Arc::from(&tick[..])), arrival: now, to });
        }
        let filtered = if is_due { self.take() } else { None };
        let was_sounding = std::mem::replace(&mut self.sounding, filtered.is_some());
        filtered.map(|mut tick| {
            if !was_sounding {
                fade_in(&mut tick[..FADE]);
            }
            tick
        })
    }

    fn take(&self) -> Option<Box<Tick>> {
        let mut samples = self.samples.lock();
        if samples.len() < AUDIO_TICK_SAMPLES {
            return None;
        }
        let mut tick: Box<Tick> = Box::new([0.0; AUDIO_TICK_SAMPLES]);
        for (to, from) in tick.iter_mut().zip(samples.drain(..AUDIO_TICK_SAMPLES)) {
            // A filter may output any value.
            *to = if from.is_nan() { 0.0 } else { from.clamp(-1.0, 1.0) };
        }
        Some(tick)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::filter::{FilterSpec, Media};
    use crate::id::SourceId;
    use crate::mixer::filter::Filters;
    use crate::mixer::outbox::Outbox;
    use crate::time::now;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn level(tick: &Tick) -> f32 {
        tick[AUDIO_TICK_SAMPLES - 1]
    }

    /// Waits until a tick has come out of the filters.
    fn wait_for_samples(voice: &FilteredVoice) {
        let begun = now();
        while voice.samples.lock().len() < AUDIO_TICK_SAMPLES {
            assert!(now().since(begun) < PATIENCE, "nothing comes out");
            thread::yield_now();
        }
    }

    #[test]
    fn a_voice_is_filtered_one_tick_later() {
        let filters = Filters::new(Arc::new(Outbox::default()), Duration::MAX);
        let stage = filters.stage(SourceId(1));
        let (name, pipeline) = ("half".into(), "volume volume=0.5".into());
        filters.set(SourceId(1), vec![FilterSpec { serial: 1, name, media: Media::Audio, pipeline, image: None }]);
        let mut voice = FilteredVoice::new(stage);
        let mut time = Timestamp::from_micros(1_000_000);
        let tick = |value: f32| Some(Box::new([value; AUDIO_TICK_SAMPLES]));
        // Nothing is heard until the filter is there.
        let begun = now();
        while voice.samples.lock().is_empty() {
            assert!(now().since(begun) < PATIENCE, "the filter does not start");
            time = time + Duration::from_millis(20);
            let heard = voice.tick(tick(0.8), time);
            assert!(heard.is_none_or(|tick| level(&tick) == 0.4), "never without the filter");
            // As slowly as the audio loop, so that the filter does not look slow.
            thread::park_timeout(Duration::from_millis(20));
        }
        // A pause empties it.
        while voice.tick(None, time).is_some() {}
        for (n, (value, before)) in [(0.2, None), (0.4, Some(0.1)), (0.6, Some(0.2))].into_iter().enumerate() {
            time = time + Duration::from_millis(20);
            assert_eq!(voice.tick(tick(value), time).as_deref().map(level), before, "tick {n}");
            assert!(voice.is_fed());
            wait_for_samples(&voice);
        }
        assert_eq!(voice.tick(None, time).as_deref().map(level), Some(0.3), "the last one follows");
        assert!(voice.tick(None, time).is_none() && !voice.is_fed());
    }

    #[test]
    fn a_voice_begins_with_a_fade() {
        let filters = Filters::new(Arc::new(Outbox::default()), Duration::MAX);
        // Without filters the samples are there at once.
        let mut voice = FilteredVoice::new(filters.stage(SourceId(1)));
        let loud = || Some(Box::new([0.5; AUDIO_TICK_SAMPLES]));
        let time = Timestamp::from_micros(1);
        assert!(voice.tick(loud(), time).is_none());
        let first = voice.tick(loud(), time).expect("the first tick");
        assert!(first[0] < 0.01 && first[FADE] == 0.5, "{}", first[0]);
        let second = voice.tick(loud(), time).expect("the second tick");
        assert_eq!(second[0], 0.5);
    }
}
