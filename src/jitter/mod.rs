//! Jitter buffers for one source: reordering of packets, detection of loss, playout times.
//!
//! Owns: reordering, duplicates, loss, restarts of senders, waiting times for late packets. Does not know: sockets,
//! decoders, payload formats. In: packets in any order, by `insert`. Out: whole frames by [`VideoJitter::poll`], audio
//! packets by [`AudioJitter::pull`]. Time is an argument, no call waits, memory is bounded, and drops are counted.

mod audio;
mod delay;
mod video;

pub use audio::{AudioJitter, AudioPull, AudioStats};
pub use video::{VideoFrame, VideoJitter, VideoPoll, VideoStats};

/// A sequence number further than this from the newest one is not of the same sequence (MAX_DROPOUT, RFC 3550 A.1).
const MAX_JUMP: i64 = 3_000;
/// Consecutive packets of another sequence after which the sender has restarted. Fewer are strays.
const RESTART_PACKETS: u32 = 3;
/// Consecutive packets at or before the newest one after which the sender has restarted at a lower number.
const OLD_RUN: u32 = 64;

/// Extends 16-bit sequence numbers to 64 bits, and detects restarts of senders and stray packets.
#[derive(Debug, Default)]
struct Numbers {
    newest: Option<i64>,
    /// The last sequence number of another sequence, and the number of consecutive packets of that sequence.
    foreign: Option<(u16, u32)>,
    old_run: u32,
}

/// The class of a sequence number.
#[derive(Debug, PartialEq, Eq)]
enum Number {
    /// Of the known sequence; a larger number is later.
    Known(i64),
    /// Of another sequence: the packet is dropped.
    Stray,
    /// The first of another sequence: the state of the sequence before is dropped.
    Restart(i64),
}

impl Numbers {
    fn take(&mut self, sequence: u16) -> Number {
        let Some(newest) = self.newest else {
            return Number::Known(self.start(sequence));
        };
        let step = i64::from(sequence.wrapping_sub(newest as u16) as i16);
        if step.abs() > MAX_JUMP {
            let run = match self.foreign {
                Some((last, run)) if i64::from(sequence.wrapping_sub(last) as i16).abs() <= 100 => run + 1,
                _ => 1,
            };
            if run >= RESTART_PACKETS {
                return Number::Restart(self.start(sequence));
            }
            self.foreign = Some((sequence, run));
            return Number::Stray;
        }
        self.foreign = None;
        if step > 0 {
            self.newest = Some(newest + step);
            self.old_run = 0;
        } else {
            self.old_run += 1;
            if self.old_run >= OLD_RUN {
                return Number::Restart(self.start(sequence));
            }
        }
        Number::Known(newest + step)
    }

    fn start(&mut self, sequence: u16) -> i64 {
        // Well above zero, so that packets which come before the first one have numbers too.
        let number = 0x1_0000 + i64::from(sequence);
        *self = Self { newest: Some(number), ..Self::default() };
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_over_the_wrap() {
        let mut numbers = Numbers::default();
        let Number::Known(first) = numbers.take(65_534) else { panic!("the first is known") };
        for (i, sequence) in [65_535, 0, 1, 2].into_iter().enumerate() {
            assert_eq!(numbers.take(sequence), Number::Known(first + 1 + i as i64));
        }
        assert_eq!(numbers.take(65_535), Number::Known(first + 1), "one from before the wrap is older");
    }

    #[test]
    fn a_stray_is_not_a_restart_but_three_neighbours_are() {
        let mut numbers = Numbers::default();
        numbers.take(100);
        assert_eq!(numbers.take(40_000), Number::Stray);
        assert!(matches!(numbers.take(101), Number::Known(_)));
        assert_eq!(numbers.take(20_000), Number::Stray);
        assert_eq!(numbers.take(20_001), Number::Stray);
        assert!(matches!(numbers.take(20_002), Number::Restart(_)));
        assert!(matches!(numbers.take(20_003), Number::Known(_)));
    }

    #[test]
    fn a_sender_that_restarts_a_little_way_back_is_not_late_for_ever() {
        let mut numbers = Numbers::default();
        numbers.take(2_000);
        let restarted = (1_000..1_100).position(|s| matches!(numbers.take(s), Number::Restart(_)));
        assert_eq!(restarted, Some(OLD_RUN as usize - 1));
    }
}
