//! Jitter buffers: packets of one source in any order in; whole video frames, or audio packets in time, out.
//!
//! Owns: reordering, duplicates, loss, restarts, how long to wait for a late packet. Does not know: sockets, decoders,
//! what a payload holds. The time comes with every call; nothing waits here, nothing grows without bound, every drop is
//! counted. A packet goes in by `insert`; a frame is taken by [`VideoJitter::poll`], audio by [`AudioJitter::pull`].

mod audio;
mod delay;
mod video;

pub use audio::{AudioJitter, AudioPull, AudioStats};
pub use video::{VideoFrame, VideoJitter, VideoPoll, VideoStats};

/// A sequence number further than this from the newest one belongs to another numbering (RFC 3550 A.1 MAX_DROPOUT).
const MAX_JUMP: i64 = 3_000;
/// So many neighbouring packets of another numbering in a row: the sender has restarted. Fewer are strays.
const RESTART_PACKETS: u32 = 3;
/// So many packets in a row at or before the newest one: the sender has restarted a little way back.
const OLD_RUN: u32 = 64;

/// Turns 16-bit sequence numbers into ones that never wrap, and tells a restarted sender from a stray packet.
#[derive(Debug, Default)]
struct Numbers {
    newest: Option<i64>,
    /// The last packet of a foreign numbering and how many neighbours in a row came before it.
    foreign: Option<(u16, u32)>,
    old_run: u32,
}

/// What a sequence number turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Number {
    /// Part of the numbering; larger is later.
    Known(i64),
    /// Far from everything else: drop it.
    Stray,
    /// The first of a new numbering: forget what was before.
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
