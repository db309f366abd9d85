//! Lip synchronization: the camera and the microphone of a participant get the same delay from capture to the mix.
//!
//! Owns: the average delays of both, and how much the one that is ahead is delayed. Does not know: jitter buffers,
//! frame slots. In: packets as they arrive, and how long media has waited when it is mixed. Out:
//! [`LipSync::audio_delay`] for the jitter buffer of the microphone, [`LipSync::video_delay`] for that of the camera.
//! Pure: time is an argument.
//!
//! Rules
//! 1. Delays are measured from capture if the sender reports when it captured both streams (RFC 3550 section 6.4.1),
//!    and these times are plausible; otherwise from arrival.
//! 2. The stream that is ahead is delayed, up to a limit. Differences that nobody notices are left.
//! 3. The delay changes slowly, and not before the jitter buffer of the microphone has followed the last change.
//! 4. Nothing is delayed while the participant sends only one of both.

use std::time::Duration;

use parking_lot::Mutex;

use crate::media::{Kind, SourcePacket};
use crate::time::Timestamp;

/// Interval of changes.
const INTERVAL: Duration = Duration::from_millis(500);
/// Difference in microseconds that is left. The jitter buffer of a microphone moves by packets of 20 ms, so that a
/// smaller one would make it move back and forth.
const TOLERANCE: i64 = 12_000;
/// Largest change in microseconds.
const STEP: i64 = 40_000;
/// Longest added delays in microseconds. Late speech disturbs a conversation more than lips that are ahead of it.
const AUDIO_DELAY_MAX: i64 = 150_000;
/// See [`AUDIO_DELAY_MAX`].
const VIDEO_DELAY_MAX: i64 = 400_000;
/// A stream that was not mixed for so long has stopped.
const STOPPED: Duration = Duration::from_secs(2);
/// Number of packets or frames that an average covers.
const WEIGHT: i64 = 16;
/// Capture times that differ by more microseconds between the streams are not of one clock.
const PLAUSIBLE: i64 = 1_000_000;
/// A change of the time from capture to arrival by more microseconds is a change of clocks.
const CLOCK_STEP: i64 = 500_000;
/// Duration of an audio packet in microseconds, before which it cannot arrive.
const PACKET: i64 = 20_000;

/// The synchronization of one participant.
#[derive(Debug, Default)]
pub struct LipSync(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    audio: Stream,
    video: Stream,
    /// Microseconds by which audio is delayed; video, if negative.
    balance: i64,
    changed: Timestamp,
}

/// Averages of one stream in microseconds.
#[derive(Debug, Default)]
struct Stream {
    /// From capture to arrival, with the difference of the two clocks; None without capture times.
    transit: Option<i64>,
    /// From arrival to the mix.
    waited: Option<i64>,
    mixed: Timestamp,
}

impl Stream {
    fn arrived(&mut self, captured: Timestamp, arrival: Timestamp) {
        // Any 64 bits may come from a hostile sender.
        let transit = (arrival.as_micros() as i64).wrapping_sub(captured.as_micros() as i64);
        let known = self.transit.filter(|known| transit.abs_diff(*known) <= CLOCK_STEP as u64);
        self.transit = Some(known.map_or(transit, |known| average(known, transit)));
    }

    fn mixed(&mut self, waited: i64, now: Timestamp) {
        self.waited = Some(match self.waited {
            Some(known) if now.since(self.mixed) <= STOPPED => average(known, waited),
            _ => waited,
        });
        self.mixed = now;
    }

    fn is_stopped(&self, now: Timestamp) -> bool {
        now.since(self.mixed) > STOPPED
    }
}

fn average(known: i64, new: i64) -> i64 {
    known + (new - known) / WEIGHT
}

impl State {
    /// How much later video is mixed than audio that was captured with it, in microseconds; None unless both are
    /// mixed.
    fn skew(&self, now: Timestamp) -> Option<i64> {
        if self.audio.is_stopped(now) || self.video.is_stopped(now) {
            return None;
        }
        let waited = self.video.waited? - self.audio.waited?;
        // Without capture times: a picture was captured shortly before it arrived, the samples of a packet from its
        // duration on.
        let by_arrival = waited - PACKET;
        let (Some(video), Some(audio)) = (self.video.transit, self.audio.transit) else { return Some(by_arrival) };
        let transit = video.wrapping_sub(audio);
        Some(if transit.unsigned_abs() <= PLAUSIBLE as u64 { waited + transit } else { by_arrival })
    }

    fn change(&mut self, is_settled: bool, now: Timestamp) {
        if now.since(self.changed) < INTERVAL {
            return;
        }
        let step = match self.skew(now) {
            // Back to no delay.
            None => (-self.balance).clamp(-STEP / 2, STEP / 2),
            Some(skew) if skew.abs() <= TOLERANCE || !is_settled => return,
            Some(skew) => (skew / 2).clamp(-STEP, STEP),
        };
        self.balance = (self.balance + step).clamp(-VIDEO_DELAY_MAX, AUDIO_DELAY_MAX);
        self.changed = now;
    }
}

impl LipSync {
    /// A packet has arrived: of video, the last one of a frame.
    pub fn arrived(&self, kind: Kind, packet: &SourcePacket) {
        let Some(captured) = packet.captured else { return };
        let mut state = self.0.lock();
        match kind {
            Kind::Audio => state.audio.arrived(captured, packet.arrival),
            Kind::Video => state.video.arrived(captured, packet.arrival),
        }
    }

    /// A frame that arrived at `arrival` is shown from `now` on.
    pub fn shown(&self, arrival: Timestamp, now: Timestamp) {
        self.0.lock().video.mixed(between(arrival, now), now);
    }

    /// A packet that arrived at `arrival` is mixed from `now` on. `is_settled`: the jitter buffer has the delay that
    /// it is to have.
    pub fn heard(&self, arrival: Timestamp, is_settled: bool, now: Timestamp) {
        let mut state = self.0.lock();
        state.audio.mixed(between(arrival, now), now);
        state.change(is_settled, now);
    }

    /// By how much to delay audio.
    pub fn audio_delay(&self) -> Duration {
        Duration::from_micros(self.0.lock().balance.max(0).unsigned_abs())
    }

    /// By how much to delay video at `now`.
    pub fn video_delay(&self, now: Timestamp) -> Duration {
        let mut state = self.0.lock();
        if state.audio.is_stopped(now) {
            // Nothing else changes the delay while no audio is mixed.
            state.change(true, now);
        }
        Duration::from_micros(state.balance.min(0).unsigned_abs())
    }
}

fn between(arrival: Timestamp, now: Timestamp) -> i64 {
    now.as_micros() as i64 - arrival.as_micros() as i64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::jitter::{AudioJitter, AudioPull};

    /// The clock of the sender in microseconds, less ours.
    const AHEAD: u64 = 77_000_000_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_micros((1_000_000_000 + ms * 1_000) as u64)
    }

    fn packet(captured: Option<Timestamp>, arrival: Timestamp) -> SourcePacket {
        SourcePacket {
            sequence: 0,
            timestamp: 0,
            marker: true,
            arrival,
            captured,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: Bytes::new(),
        }
    }

    /// A participant; all times in milliseconds.
    #[derive(Debug, Clone, Copy)]
    struct Sender {
        /// From capture to arrival, at least.
        audio_transit: i64,
        video_transit: i64,
        /// Packets of audio arrive up to so much later.
        audio_jitter: i64,
        /// From arrival to the mix, without an added delay.
        video_wait: i64,
        reports: bool,
    }

    /// The mixer's part of a participant.
    struct Mixed {
        sync: LipSync,
        jitter: AudioJitter,
        /// Packets on their way.
        sent: Vec<SourcePacket>,
        packets: u16,
        now: i64,
    }

    impl Mixed {
        fn new() -> Self {
            Self { sync: LipSync::default(), jitter: AudioJitter::new(48_000), sent: Vec::new(), packets: 0, now: 0 }
        }

        fn at(&self) -> Timestamp {
            at(self.now)
        }

        /// Runs for so many milliseconds; returns how much later video is mixed than its audio on average.
        fn run(&mut self, sender: Sender, ms: i64) -> i64 {
            let captured = |now: i64, transit: i64| {
                sender.reports.then(|| Timestamp::from_micros(at(now - transit).as_micros() + AHEAD))
            };
            let (mut audio, mut video) = (Vec::new(), Vec::new());
            for now in self.now..self.now + ms {
                if now % 33 == 0 {
                    self.sync.arrived(Kind::Video, &packet(captured(now, sender.video_transit), at(now)));
                    let wait = sender.video_wait + self.sync.video_delay(at(now)).as_millis() as i64;
                    self.sync.shown(at(now - wait), at(now));
                    video.push(sender.video_transit + wait);
                }
                if now % 20 == 0 {
                    let late = sender.audio_jitter * (now / 20 % 7) / 6;
                    let (n, arrival) = (self.packets, at(now + late));
                    self.packets = n.wrapping_add(1);
                    let arrived = packet(captured(now, sender.audio_transit), arrival);
                    self.sent.push(SourcePacket { sequence: n, timestamp: u32::from(n) * 960, ..arrived });
                }
                for arrived in self.sent.extract_if(.., |packet| packet.arrival <= at(now)) {
                    self.sync.arrived(Kind::Audio, &arrived);
                    self.jitter.insert(arrived, at(now));
                }
                if now % 20 == 7 {
                    self.jitter.set_extra(self.sync.audio_delay());
                    if let AudioPull::Packet(pulled) = self.jitter.pull(at(now)) {
                        self.sync.heard(pulled.arrival, self.jitter.is_settled(), at(now));
                        // Packet n is sent in millisecond 20 n.
                        audio.push(now - i64::from(pulled.sequence) * 20 + sender.audio_transit);
                    }
                }
            }
            self.now += ms;
            let average = |delays: &[i64]| delays.iter().sum::<i64>() / (delays.len() as i64).max(1);
            average(&video) - average(&audio)
        }
    }

    proptest! {
        /// Whatever is late, both are mixed together soon, and stay so.
        #[test]
        fn audio_and_video_that_were_captured_together_are_mixed_together(
            audio_transit in 20..200_i64,
            later in -400..=150_i64,
            audio_jitter in 0..100_i64,
            video_wait in 5..120_i64,
        ) {
            // Audio waits for 27 ms at least.
            let video_transit = (audio_transit + 27 + later - video_wait).max(5);
            let sender = Sender { audio_transit, video_transit, audio_jitter, video_wait, reports: true };
            let mut mixed = Mixed::new();
            mixed.run(sender, 15_000);
            for _ in 0..8 {
                let apart = mixed.run(sender, 1_000);
                prop_assert!(apart.abs() <= 30, "{apart} ms apart");
            }
            prop_assert!(mixed.sync.audio_delay().is_zero() || mixed.sync.video_delay(mixed.at()).is_zero());
        }

        /// Capture times of a hostile sender delay nothing beyond the limits, and overflow nothing.
        #[test]
        fn the_delays_are_bounded(
            captured in prop::collection::vec((any::<u64>(), any::<u64>()), 1..50),
            waits in (0..5_000_i64, 0..5_000_i64),
        ) {
            let sync = LipSync::default();
            for (n, (audio, video)) in (0_i64..).zip(captured) {
                let now = at(n * 500);
                sync.arrived(Kind::Audio, &packet(Some(Timestamp::from_micros(audio)), now));
                sync.arrived(Kind::Video, &packet(Some(Timestamp::from_micros(video)), now));
                sync.shown(at(n * 500 - waits.0), now);
                sync.heard(at(n * 500 - waits.1), true, now);
                prop_assert!(sync.audio_delay() <= Duration::from_millis(150));
                prop_assert!(sync.video_delay(now) <= Duration::from_millis(400));
            }
        }
    }

    #[test]
    fn without_reports_the_waiting_times_are_compared() {
        let sender = Sender { audio_transit: 900, video_transit: 5, audio_jitter: 60, video_wait: 10, reports: false };
        let mut mixed = Mixed::new();
        mixed.run(sender, 10_000);
        let apart = mixed.run(sender, 1_000) + 900 - 5;
        // Video waits for a packet of 20 ms more than audio, which is 30 ms late on average.
        assert!((-30..=10).contains(&apart), "{apart} ms");
    }

    #[test]
    fn capture_times_of_two_clocks_are_not_compared() {
        let sender = Sender { audio_transit: 0, video_transit: 5_000, audio_jitter: 0, video_wait: 50, reports: true };
        let mut mixed = Mixed::new();
        mixed.run(sender, 10_000);
        assert_eq!((mixed.sync.audio_delay(), mixed.sync.video_delay(mixed.at())), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn a_participant_that_stops_its_microphone_has_no_delay_after_a_while() {
        let sender = Sender { audio_transit: 20, video_transit: 20, audio_jitter: 100, video_wait: 10, reports: true };
        let mut mixed = Mixed::new();
        mixed.run(sender, 8_000);
        let Mixed { sync, .. } = &mixed;
        assert!(sync.video_delay(at(8_000)) >= Duration::from_millis(60), "{sync:?}");
        for now in 0..200 {
            sync.shown(at(8_000 + now * 33 - 10), at(8_000 + now * 33));
            sync.video_delay(at(8_000 + now * 33));
        }
        assert_eq!(sync.video_delay(at(15_000)), Duration::ZERO);
    }
}
