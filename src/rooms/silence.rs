//! Silent microphones: packets that no mixer has to decode.
//!
//! Owns: [`SilenceFilter`], the decision for the packets of one microphone by their levels (RFC 6464). Does not know:
//! rooms, codecs. In: the level and size of each packet, whether it is mixed, and the time. Out: [`Need`].
//!
//! A browser whose microphone is muted, or hears nothing, sends fifty packets of silence a second. The mixer's gate
//! keeps them out of the mix, but would have to decode them first. Instead of them the mixer gets a sign once a second
//! that the sender is there.

use std::time::Duration;

use crate::time::Timestamp;

/// Levels from here on (-dBov) never open the gate of the mixer: 60, and 3 of hysteresis.
const QUIET: u8 = 64;
/// Silence that is forwarded: the gate closes, the decoder and the jitter buffer come to rest.
const FORWARDED: Duration = Duration::from_secs(1);
/// One in so many packets of a silence is forwarded (5 s), so that sequence numbers are not lost track of.
const EVERY: u32 = 250;
/// Largest packet of silence, in bytes, of a client that has never sent a louder level: some send a constant.
const SILENCE_BYTES: usize = 48;

/// Longest time without a packet or a sign; shorter than that after which the mixer takes a sender for lost.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// What the mixer needs of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The packet.
    Packet,
    /// Only that one has come.
    Sign,
    /// Nothing.
    Nothing,
}

/// Which packets of one microphone are forwarded.
#[derive(Debug, Default)]
pub(super) struct SilenceFilter {
    /// When the mixer last got a packet or a sign.
    signed: Timestamp,
    /// A louder level has been sent: the levels mean something.
    credible: bool,
    since: Option<Timestamp>,
    withheld: u32,
}

impl SilenceFilter {
    /// What the mixer needs of a packet with this level in -dBov, if it has one, and so many bytes of payload. `mixed`:
    /// its source is in a mix.
    pub(super) fn need(&mut self, mixed: bool, level: Option<u8>, bytes: usize, now: Timestamp) -> Need {
        let need = if mixed && self.forwards(level, bytes, now) {
            Need::Packet
        } else if now.since(self.signed) >= SIGN_INTERVAL {
            Need::Sign
        } else {
            return Need::Nothing;
        };
        self.signed = now;
        need
    }

    /// Whether to forward a packet of a source in a mix.
    fn forwards(&mut self, level: Option<u8>, bytes: usize, now: Timestamp) -> bool {
        let is_silence = level.is_some_and(|level| level >= QUIET) && (self.credible || bytes <= SILENCE_BYTES);
        if !is_silence {
            self.credible |= level.is_some_and(|level| level < QUIET);
            (self.since, self.withheld) = (None, 0);
            return true;
        }
        if now.since(*self.since.get_or_insert(now)) < FORWARDED {
            return true;
        }
        self.withheld += 1;
        self.withheld.is_multiple_of(EVERY)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(packet: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + packet * 20_000)
    }

    /// What is needed of packets with these levels and this size.
    fn needs(levels: impl IntoIterator<Item = Option<u8>>, bytes: usize) -> Vec<Need> {
        let mut filter = SilenceFilter::default();
        (0..).zip(levels).map(|(n, level)| filter.need(true, level, bytes, at(n))).collect()
    }

    /// The number of packets that are forwarded.
    fn forwarded(levels: impl IntoIterator<Item = Option<u8>>, bytes: usize) -> usize {
        needs(levels, bytes).into_iter().filter(|need| *need == Need::Packet).count()
    }

    #[test]
    fn a_sign_once_a_second_takes_the_place_of_silence_and_of_a_source_in_no_mix() {
        let silence = needs(vec![Some(127); 50 + 500], 8);
        let needed: Vec<usize> = (0..silence.len()).filter(|n| silence[*n] != Need::Nothing).collect();
        assert!(needed.windows(2).all(|pair| pair[1] - pair[0] <= 50), "{needed:?}");
        assert_eq!(silence.iter().filter(|need| **need == Need::Sign).count(), 8, "and two packets in ten seconds");
        let mut filter = SilenceFilter::default();
        let unmixed: Vec<Need> = (0..500).map(|n| filter.need(false, Some(30), 80, at(n))).collect();
        assert_eq!(unmixed.iter().filter(|need| **need == Need::Sign).count(), 10);
        assert!(!unmixed.contains(&Need::Packet));
    }

    #[test]
    fn silence_is_forwarded_for_a_second_and_then_once_in_five_seconds() {
        assert_eq!(forwarded(vec![Some(127); 50], 8), 50);
        assert_eq!(forwarded(vec![Some(127); 50 + 1_000], 8), 50 + 4);
    }

    #[test]
    fn packets_without_a_level_and_large_packets_of_constant_silence_are_forwarded() {
        assert_eq!(forwarded(vec![None; 1_000], 8), 1_000);
        assert_eq!(forwarded(vec![Some(127); 1_000], 80), 1_000, "the client sends a constant");
        let levels = std::iter::once(Some(40)).chain(vec![Some(90); 1_000]);
        assert!(forwarded(levels, 80) < 60, "the noise of a client whose levels vary");
    }

    proptest! {
        /// Every packet that may open the mixer's gate is forwarded, at once.
        #[test]
        fn audible_packets_are_never_withheld(levels in prop::collection::vec((0..=127_u8, 1..200_usize), 1..60)) {
            let (mut filter, mut n) = (SilenceFilter::default(), 0);
            for (level, count) in levels {
                for _ in 0..count {
                    let need = filter.need(true, Some(level), 40, at(n));
                    prop_assert!(need == Need::Packet || level >= QUIET);
                    n += 1;
                }
            }
        }
    }
}
