//! What SRTP remembers of each SSRC: packet indexes and replay windows (RFC 3711 section 3.2.3). Pure.
//!
//! Owns: which SSRCs a direction knows, and how many at most. Does not know: keys, packets. A received SSRC is added
//! only by [`Inbound::accept`], after its packet was authenticated. The SSRC that was quiet for longest leaves at the
//! bound, but its highest index is kept: when it comes back its roll-over counter continues, and nothing of before can
//! be replayed.

use std::collections::VecDeque;

use super::Error;

/// Received SSRCs with a replay window; a browser sends three encodings with retransmissions, a screen and a voice:
/// below ten.
pub(super) const SOURCES_MAX: usize = 64;
/// Received SSRCs beyond those of which only the highest index is kept; the oldest is forgotten.
pub(super) const RETIRED_MAX: usize = 1_024;
/// SSRCs that we send by. None of them may be forgotten, since that would use a nonce twice; ours are few.
pub(super) const OUTBOUND_MAX: usize = 1_024;
/// Packets behind the highest that are distinguished from replays: more than a second of video, so that a late
/// retransmission is accepted.
pub(super) const WINDOW: u64 = 512;
/// The highest RTP index: 32 bits of roll-over counter, 16 of sequence number.
const RTP_INDEX_MAX: u64 = (1 << 48) - 1;
/// The highest SRTCP index.
const RTCP_INDEX_MAX: u64 = (1 << 31) - 1;

/// The index that a sequence number most likely has after this one (RFC 3711 section 3.3.1).
const fn nearest_index(highest: u64, sequence: u16) -> u64 {
    let (counter, last) = (highest >> 16, highest as u16);
    let ahead = sequence.wrapping_sub(last);
    let counter = if ahead < 1 << 15 {
        // Forward, over the end perhaps.
        if sequence < last { counter + 1 } else { counter }
    } else if sequence > last && counter > 0 {
        counter - 1
    } else {
        counter
    };
    (counter << 16) | sequence as u64
}

/// The indexes that were received of one SSRC.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    highest: u64,
    /// Bit `index % WINDOW` is set for an index received, of the highest and those before it.
    received: [u64; WINDOW as usize / 64],
}

impl Window {
    fn new(first: u64) -> Self {
        let mut window = Self { highest: first, received: [0; _] };
        window.set(first);
        window
    }

    /// One of an SSRC that left and came back: of what was before, nothing is taken any more.
    const fn resumed(highest: u64) -> Self {
        Self { highest, received: [u64::MAX; _] }
    }

    const fn place(index: u64) -> (usize, u64) {
        let at = index % WINDOW;
        (at as usize / 64, 1 << (at % 64))
    }

    fn set(&mut self, index: u64) {
        let (word, bit) = Self::place(index);
        self.received[word] |= bit;
    }

    fn is_fresh(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        let (word, bit) = Self::place(index);
        self.highest - index < WINDOW && self.received[word] & bit == 0
    }

    fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= WINDOW {
                self.received = [0; _];
            } else {
                for skipped in self.highest + 1..index {
                    let (word, bit) = Self::place(skipped);
                    self.received[word] &= !bit;
                }
            }
            self.highest = index;
        }
        self.set(index);
    }
}

/// One received SSRC.
#[derive(Debug)]
struct Source {
    ssrc: u32,
    window: Window,
    /// The number of the packet that it was last used for.
    used: u64,
}

/// The received SSRCs of SRTP or of SRTCP.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    sources: Vec<Source>,
    /// SSRCs without a window and their highest indexes, the latest last.
    retired: VecDeque<(u32, u64)>,
    /// Packets accepted.
    accepted: u64,
}

impl Inbound {
    /// The index of an RTP packet with this sequence number, as far as that can be known before it is authenticated.
    pub(super) fn rtp_index(&self, ssrc: u32, sequence: u16) -> u64 {
        self.highest(ssrc).map_or_else(|| sequence.into(), |highest| nearest_index(highest, sequence))
    }

    /// Whether a packet with this index may be new. Leaves no state.
    pub(super) fn is_fresh(&self, ssrc: u32, index: u64) -> bool {
        match self.sources.iter().find(|source| source.ssrc == ssrc) {
            Some(source) => source.window.is_fresh(index),
            None => self.highest(ssrc).is_none_or(|highest| index > highest),
        }
    }

    /// Remembers a packet that has been authenticated.
    pub(super) fn accept(&mut self, ssrc: u32, index: u64) {
        self.accepted += 1;
        if let Some(source) = self.sources.iter_mut().find(|source| source.ssrc == ssrc) {
            source.window.accept(index);
            source.used = self.accepted;
            return;
        }
        let window = match self.retired.iter().position(|(retired, _)| *retired == ssrc) {
            Some(at) => {
                let (_, highest) = self.retired.remove(at).expect("it is there");
                let mut window = Window::resumed(highest);
                window.accept(index);
                window
            }
            None => Window::new(index),
        };
        if self.sources.len() == SOURCES_MAX {
            self.retire();
        }
        self.sources.push(Source { ssrc, window, used: self.accepted });
    }

    /// Takes the window of the SSRC that was quiet for longest.
    fn retire(&mut self) {
        let quietest = self.sources.iter().enumerate().min_by_key(|(_, source)| source.used).map(|(at, _)| at);
        let Some(at) = quietest else { return };
        let source = self.sources.swap_remove(at);
        if self.retired.len() == RETIRED_MAX {
            self.retired.pop_front();
        }
        self.retired.push_back((source.ssrc, source.window.highest));
    }

    fn highest(&self, ssrc: u32) -> Option<u64> {
        let known = self.sources.iter().find(|source| source.ssrc == ssrc).map(|source| source.window.highest);
        known.or_else(|| self.retired.iter().find(|(retired, _)| *retired == ssrc).map(|(_, highest)| *highest))
    }

    /// SSRCs with a window, and those without.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.sources.len(), self.retired.len())
    }
}

/// The SSRCs that we send by, in SRTP or in SRTCP, and their highest indexes.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    sources: Vec<(u32, u64)>,
}

impl Outbound {
    /// The index of the RTP packet with this sequence number.
    ///
    /// # Errors
    /// [`Error::Exhausted`] after the last one.
    pub(super) fn rtp_index(&self, ssrc: u32, sequence: u16) -> Result<u64, Error> {
        let index = self.highest(ssrc).map_or_else(|| sequence.into(), |highest| nearest_index(highest, sequence));
        if index > RTP_INDEX_MAX { Err(Error::Exhausted) } else { Ok(index) }
    }

    /// The index of the next RTCP packet; the first has 1.
    ///
    /// # Errors
    /// [`Error::Exhausted`] after the last one.
    pub(super) fn next_rtcp_index(&self, ssrc: u32) -> Result<u64, Error> {
        let index = self.highest(ssrc).map_or(1, |highest| highest + 1);
        if index > RTCP_INDEX_MAX { Err(Error::Exhausted) } else { Ok(index) }
    }

    /// Remembers that an index was used.
    ///
    /// # Errors
    /// [`Error::TooManySources`] where this is an SSRC too many.
    pub(super) fn sent(&mut self, ssrc: u32, index: u64) -> Result<(), Error> {
        if let Some((_, highest)) = self.sources.iter_mut().find(|(known, _)| *known == ssrc) {
            *highest = (*highest).max(index);
            return Ok(());
        }
        if self.sources.len() == OUTBOUND_MAX {
            return Err(Error::TooManySources);
        }
        self.sources.push((ssrc, index));
        Ok(())
    }

    fn highest(&self, ssrc: u32) -> Option<u64> {
        self.sources.iter().find(|(known, _)| *known == ssrc).map(|(_, highest)| *highest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_roll_over_counter_follows_the_sequence_number_both_ways() {
        for (highest, sequence, expected) in [
            (65_530, 65_531, 65_531),
            (65_530, 3, 65_536 + 3),
            (65_536 + 3, 65_530, 65_530),
            (2, 65_530, 65_530),
            (7 << 16, 40_000, (6 << 16) + 40_000),
            ((7 << 16) + 40_000, 5, (8 << 16) + 5),
            ((7 << 16) + 40_000, 39_000, (7 << 16) + 39_000),
        ] {
            assert_eq!(nearest_index(highest, sequence), expected, "{highest} {sequence}");
        }
    }

    #[test]
    fn indexes_end_with_an_error_and_are_not_used_twice() {
        let mut outbound = Outbound::default();
        outbound.sent(1, RTP_INDEX_MAX).expect("room");
        assert_eq!(outbound.rtp_index(1, 0), Err(Error::Exhausted));
        outbound.sent(2, RTCP_INDEX_MAX).expect("room");
        assert_eq!(outbound.next_rtcp_index(2), Err(Error::Exhausted));
    }

    #[test]
    fn an_ssrc_too_many_of_ours_is_refused_and_none_is_forgotten() {
        let mut outbound = Outbound::default();
        for ssrc in 0..OUTBOUND_MAX as u32 {
            outbound.sent(ssrc, 9).expect("room");
        }
        assert_eq!(outbound.sent(9_999_999, 1), Err(Error::TooManySources));
        assert_eq!(outbound.next_rtcp_index(0), Ok(10));
    }

    #[test]
    fn the_quietest_ssrc_leaves_and_continues_where_it_was() {
        let mut inbound = Inbound::default();
        inbound.accept(0, 70_000);
        inbound.accept(1, 5);
        for ssrc in 2..=SOURCES_MAX as u32 {
            inbound.accept(1, 5 + u64::from(ssrc));
            inbound.accept(ssrc, 1);
        }
        assert_eq!(inbound.counts(), (SOURCES_MAX, 1));
        assert!(!inbound.is_fresh(0, 70_000) && !inbound.is_fresh(0, 69_999), "nothing of before is replayed");
        assert_eq!(inbound.rtp_index(0, 4_465), 70_001, "the roll-over counter is 1");
        inbound.accept(0, 70_001);
        assert_eq!(inbound.counts(), (SOURCES_MAX, 1), "another has left");
        assert!(!inbound.is_fresh(0, 70_001) && !inbound.is_fresh(0, 69_999) && inbound.is_fresh(0, 70_002));
        inbound.accept(0, 70_005);
        assert!(inbound.is_fresh(0, 70_004) && !inbound.is_fresh(0, 70_000), "reordering is fine from here on");
    }

    #[test]
    fn the_number_of_ssrcs_is_bounded() {
        let mut inbound = Inbound::default();
        for ssrc in 0..10_000 {
            inbound.accept(ssrc, 1);
        }
        assert_eq!(inbound.counts(), (SOURCES_MAX, RETIRED_MAX));
        assert!(inbound.retired.capacity() <= 2 * RETIRED_MAX && inbound.sources.capacity() <= 2 * SOURCES_MAX);
    }

    proptest! {
        #[test]
        fn a_window_takes_each_index_once_and_none_that_is_too_old(
            steps in proptest::collection::vec((0_u64..700, any::<bool>()), 1..300),
        ) {
            let (mut window, mut taken) = (Window::new(10_000), BTreeSet::from([10_000]));
            for (step, back) in steps {
                let index = if back { window.highest.saturating_sub(step) } else { window.highest + step };
                let fresh = !taken.contains(&index) && window.highest.saturating_sub(index) < WINDOW;
                prop_assert_eq!(window.is_fresh(index), fresh, "{}", index);
                if fresh {
                    window.accept(index);
                    taken.insert(index);
                }
            }
        }

        #[test]
        fn indexes_are_found_again_whatever_is_lost(steps in proptest::collection::vec(1_u64..30_000, 1..200)) {
            let mut index = 17;
            for step in steps {
                let next = index + step;
                prop_assert_eq!(nearest_index(index, next as u16), next);
                prop_assert_eq!(nearest_index(next, index as u16), index);
                index = next;
            }
        }
    }
}
