//! The choice of the encoding: the one whose picture is nearest to the size at which it is shown.
//!
//! Owns: what is known of each encoding (size, when it delivered, unrepaired losses), the choice, and requests for
//! keyframes of what is chosen. Does not know: packets. A larger encoding is chosen at once, a smaller one only after
//! it has been enough for a while, and choices have a least distance, so that tiles that change their size to and fro
//! do not cause switches. An encoding that does not deliver, or whose losses are not repaired, is left at once.

use std::collections::VecDeque;
use std::time::Duration;

use crate::media::Size;
use crate::time::Timestamp;

/// An encoding does not deliver if it has had no packet for so long while another one had.
const STALLED: Duration = Duration::from_millis(300);
/// Least time from one switch to the next while both encodings deliver: the mixer allows four changes of the size in
/// ten seconds.
pub const DWELL: Duration = Duration::from_millis(3_500);
/// A source begins with the encoding that comes first: larger ones may follow each other at once for so long.
const BEGINNING: Duration = Duration::from_secs(1);
/// How long a smaller encoding must be enough before it is chosen.
pub const LOWER_HOLD: Duration = Duration::from_secs(2);
/// From one keyframe request to the next. The first comes as soon as an encoding is chosen.
const REQUEST_INTERVAL: Duration = Duration::from_millis(500);
/// From one keyframe request to the next to an encoding that is not chosen and whose size is not known.
const SIZE_REQUEST_INTERVAL: Duration = Duration::from_secs(5);
/// Unrepaired losses within [`UNREPAIRED_WITHIN`] after which an encoding is avoided for [`AVOIDED`].
const UNREPAIRED_MAX: usize = 5;
/// See [`UNREPAIRED_MAX`].
const UNREPAIRED_WITHIN: Duration = Duration::from_secs(10);
/// See [`UNREPAIRED_MAX`].
const AVOIDED: Duration = Duration::from_secs(30);

/// What is known of one encoding.
#[derive(Debug, Clone, Default)]
struct Encoding {
    /// Of its newest keyframe.
    size: Option<Size>,
    /// When its newest packet came.
    heard: Option<Timestamp>,
    unrepaired: VecDeque<Timestamp>,
    avoided_until: Option<Timestamp>,
    /// When a keyframe was last requested.
    requested: Option<Timestamp>,
}

impl Encoding {
    fn pixels(&self) -> Option<u64> {
        self.size.map(pixels)
    }
}

fn pixels(size: Size) -> u64 {
    u64::from(size.width) * u64::from(size.height)
}

/// The one of these pictures whose size is nearest to the wanted one, by the ratio of their areas. None without
/// pictures.
pub fn nearest<T>(pictures: impl Iterator<Item = (T, Size)>, wanted: Size) -> Option<T> {
    let area = |size: Size| pixels(size).max(1) as f64;
    let distance = |(_, size): &(T, Size)| (area(*size) / area(wanted)).ln().abs();
    pictures.min_by(|a, b| distance(a).total_cmp(&distance(b))).map(|(one, _)| one)
}

/// The choice among the encodings of one source.
#[derive(Debug)]
pub(super) struct Selector {
    encodings: Vec<Encoding>,
    /// The size at which the picture is shown; None before it is known.
    wanted: Option<Size>,
    current: Option<usize>,
    target: Option<usize>,
    switched: Option<Timestamp>,
    /// When the first encoding was received.
    begun: Option<Timestamp>,
    /// Since when a smaller encoding is enough.
    lower_since: Option<Timestamp>,
}

impl Selector {
    pub(super) fn new(encodings: usize, wanted: Option<Size>) -> Self {
        Self {
            encodings: vec![Encoding::default(); encodings],
            wanted,
            current: None,
            target: None,
            switched: None,
            begun: None,
            lower_since: None,
        }
    }

    pub(super) fn want(&mut self, size: Size, now: Timestamp) {
        self.wanted = Some(size);
        self.choose(now);
    }

    /// A packet has come. `keyframe`: a keyframe of this size begins in it.
    pub(super) fn received(&mut self, encoding: usize, keyframe: Option<Size>, now: Timestamp) {
        let known = &mut self.encodings[encoding];
        known.heard = Some(now);
        if keyframe.is_some() {
            known.size = keyframe;
        }
        self.choose(now);
        if keyframe.is_some() && self.target == Some(encoding) {
            // The rest of it is on the way.
            self.encodings[encoding].requested = Some(now);
        }
    }

    /// A lost packet was requested and did not come.
    pub(super) fn unrepaired(&mut self, encoding: usize, now: Timestamp) {
        let known = &mut self.encodings[encoding];
        known.unrepaired.retain(|at| now.since(*at) < UNREPAIRED_WITHIN);
        known.unrepaired.push_back(now);
        if known.unrepaired.len() >= UNREPAIRED_MAX {
            known.unrepaired.clear();
            known.avoided_until = Some(now + AVOIDED);
        }
    }

    /// The client has stopped an encoding; it may send it again. False if no other one is sent.
    pub(super) fn stopped(&mut self, encoding: usize, now: Timestamp) -> bool {
        self.encodings[encoding].heard = None;
        self.choose(now);
        self.encodings.iter().any(|encoding| encoding.heard.is_some())
    }

    /// The stream of an encoding begins anew.
    pub(super) fn restarted(&mut self, encoding: usize) {
        self.encodings[encoding] = Encoding::default();
        if self.current == Some(encoding) {
            (self.current, self.target) = (None, None);
        }
    }

    /// The chosen encoding is received from now on.
    pub(super) fn switched(&mut self, encoding: usize, now: Timestamp) {
        self.begun.get_or_insert(now);
        // The first one was not chosen, so it may be replaced at once.
        self.switched = self.current.map(|_| now);
        (self.current, self.target, self.lower_since) = (Some(encoding), None, None);
        self.choose(now);
    }

    /// The encoding that is received.
    pub(super) fn current(&self) -> Option<usize> {
        self.current
    }

    /// The encoding that is to be received as soon as it has a keyframe.
    pub(super) fn target(&self) -> Option<usize> {
        self.target
    }

    /// The sizes of the encodings that are sent and smaller than the one that is wanted.
    pub(super) fn smaller(&self) -> impl Iterator<Item = Size> {
        let sent = move || (0..self.encodings.len()).filter(|at| self.delivers(*at));
        let sizes = move || sent().filter_map(|at| self.encodings[at].size);
        let best = self.wanted.and_then(|wanted| nearest(sizes().map(|size| (size, size)), wanted));
        sizes().filter(move |size| best.is_some_and(|best| pixels(*size) < pixels(best)))
    }

    pub(super) fn requests(&mut self, now: Timestamp) -> Vec<usize> {
        let due = |selector: &Self, at: usize| selector.request_of(at).is_some_and(|due| due <= now);
        let due: Vec<usize> = (0..self.encodings.len()).filter(|at| due(self, *at)).collect();
        due.iter().for_each(|at| self.encodings[*at].requested = Some(now));
        due
    }

    pub(super) fn request_due(&self) -> Option<Timestamp> {
        (0..self.encodings.len()).filter_map(|at| self.request_of(at)).min()
    }

    /// When to request the next keyframe of an encoding. One that begins sends a keyframe by itself.
    fn request_of(&self, at: usize) -> Option<Timestamp> {
        let Encoding { size, heard, requested, .. } = &self.encodings[at];
        let heard = (*heard)?;
        let after = |interval: Duration| requested.map_or(heard, |at| at + interval);
        match self.current {
            _ if self.target == Some(at) => Some(after(REQUEST_INTERVAL)),
            None => Some(requested.unwrap_or(heard) + REQUEST_INTERVAL),
            Some(_) if size.is_none() => Some(after(SIZE_REQUEST_INTERVAL)),
            Some(_) => None,
        }
    }

    fn choose(&mut self, now: Timestamp) {
        self.target = self.current.and_then(|current| self.next(current, now));
    }

    /// The encoding to switch to.
    fn next(&mut self, current: usize, now: Timestamp) -> Option<usize> {
        let is_usable = self.delivers(current) && !self.is_avoided(current, now);
        let best = match self.nearest(now) {
            Some(best) if best != current => best,
            _ => {
                self.lower_since = None;
                return None;
            }
        };
        if !is_usable {
            return Some(best);
        }
        let is_smaller = self.encodings[best].pixels() < self.encodings[current].pixels();
        if is_smaller {
            let since = *self.lower_since.get_or_insert(now);
            if now.since(since) < LOWER_HOLD {
                return None;
            }
        } else {
            self.lower_since = None;
        }
        let begins = !is_smaller && self.begun.is_some_and(|begun| now.since(begun) < BEGINNING);
        let dwells = self.switched.is_some_and(|at| now.since(at) < DWELL);
        (begins || !dwells).then_some(best)
    }

    /// The usable encoding whose size is nearest to the wanted one, by the ratio of their areas; the current one while
    /// nothing is wanted yet.
    fn nearest(&self, now: Timestamp) -> Option<usize> {
        let usable = |avoided: bool| {
            let delivering = (0..self.encodings.len()).filter(|at| self.delivers(*at));
            let usable = delivering.filter(move |at| avoided || !self.is_avoided(*at, now));
            usable.filter_map(|at| Some((at, self.encodings[at].size?)))
        };
        let among: Vec<(usize, Size)> = match usable(false).next() {
            Some(_) => usable(false).collect(),
            None => usable(true).collect(),
        };
        let Some(wanted) = self.wanted else {
            let stays = self.current.filter(|current| among.iter().any(|(at, _)| at == current));
            return stays.or_else(|| among.iter().max_by_key(|(_, size)| pixels(*size)).map(|(at, _)| *at));
        };
        nearest(among.into_iter(), wanted)
    }

    /// Whether packets of it come, as far as those of others do.
    fn delivers(&self, at: usize) -> bool {
        let Some(heard) = self.encodings[at].heard else { return false };
        let newest = self.encodings.iter().filter_map(|encoding| encoding.heard).max();
        newest.is_some_and(|newest| newest.since(heard) < STALLED)
    }

    fn is_avoided(&self, at: usize, now: Timestamp) -> bool {
        self.encodings[at].avoided_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const Q: usize = 0;
    const H: usize = 1;
    const F: usize = 2;
    const SIZES: [Size; 3] = [Size::new(320, 180), Size::new(640, 360), Size::new(1280, 720)];

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    /// Three encodings whose packets come every 33 ms.
    struct Sender {
        selector: Selector,
        now: u64,
        delivers: [bool; 3],
        switches: Vec<(u64, usize)>,
    }

    impl Sender {
        /// A sender whose smallest encoding came first.
        fn new() -> Self {
            let mut sender =
                Self { selector: Selector::new(3, None), now: 0, delivers: [true; 3], switches: Vec::new() };
            for encoding in [Q, H, F] {
                sender.selector.received(encoding, Some(SIZES[encoding]), at(0));
            }
            sender.selector.switched(Q, at(0));
            sender
        }

        fn want(&mut self, width: u32, height: u32) {
            self.selector.want(Size::new(width, height), at(self.now));
        }

        /// Each keyframe that is requested comes with the next packet.
        fn run(&mut self, ms: u64) {
            let end = self.now + ms;
            while self.now < end {
                self.now += 33;
                let requested = self.selector.requests(at(self.now));
                for encoding in [Q, H, F].into_iter().filter(|encoding| self.delivers[*encoding]) {
                    let keyframe = requested.contains(&encoding).then_some(SIZES[encoding]);
                    self.selector.received(encoding, keyframe, at(self.now));
                    if keyframe.is_some() && self.selector.target() == Some(encoding) {
                        self.selector.switched(encoding, at(self.now));
                        self.switches.push((self.now, encoding));
                    }
                }
            }
        }

        fn current(&self) -> usize {
            self.selector.current().expect("one is received")
        }
    }

    #[test]
    fn the_encoding_nearest_to_the_tile_is_chosen() {
        for ((width, height), expected) in [
            ((1280, 720), F),
            ((960, 540), F),
            ((640, 360), H),
            ((480, 270), H),
            ((427, 240), Q),
            ((256, 144), Q),
            ((0, 0), Q),
            ((u32::MAX, u32::MAX), F),
        ] {
            let mut sender = Sender::new();
            sender.want(width, height);
            sender.run(200);
            assert_eq!(sender.current(), expected, "{width}x{height}");
            assert!(sender.switches.len() <= 1, "{:?}", sender.switches);
        }
    }

    #[test]
    fn smaller_encodings_than_the_wanted_one_are_known() {
        let mut sender = Sender::new();
        assert_eq!(sender.selector.smaller().count(), 0, "nothing is wanted yet");
        sender.want(1280, 720);
        assert_eq!(sender.selector.smaller().collect::<Vec<_>>(), [SIZES[Q], SIZES[H]]);
        sender.delivers[Q] = false;
        sender.run(1_000);
        assert_eq!(sender.selector.smaller().collect::<Vec<_>>(), [SIZES[H]], "of those that are sent");
        sender.want(320, 180);
        assert_eq!(sender.selector.smaller().count(), 0);
    }

    #[test]
    fn a_source_begins_with_the_encodings_in_the_order_of_their_arrival() {
        let mut selector = Selector::new(3, Some(SIZES[F]));
        for (encoding, ms) in [(Q, 0), (H, 100), (F, 300)] {
            selector.received(encoding, Some(SIZES[encoding]), at(ms));
            assert_eq!(selector.target(), (encoding != Q).then_some(encoding));
            selector.switched(encoding, at(ms + 20));
        }
        assert_eq!(selector.current(), Some(F));
    }

    #[test]
    fn a_larger_encoding_is_chosen_at_once_and_a_smaller_one_only_after_a_while() {
        let mut sender = Sender::new();
        sender.want(1280, 720);
        sender.run(70);
        assert_eq!(sender.current(), F);
        sender.want(320, 180);
        sender.run(3_300);
        assert_eq!(sender.current(), F);
        sender.run(400);
        assert_eq!(sender.current(), Q);
    }

    #[test]
    fn an_encoding_that_does_not_deliver_is_left_for_one_that_does() {
        let mut sender = Sender::new();
        sender.want(320, 180);
        sender.run(1_000);
        sender.delivers[Q] = false;
        sender.run(600);
        assert_eq!(sender.current(), H, "the next larger one");
        sender.delivers = [false, false, true];
        sender.run(600);
        assert_eq!(sender.current(), F, "also soon after the last switch");
        sender.delivers = [true; 3];
        sender.run(6_000);
        assert_eq!(sender.current(), Q, "it delivers again");
        // One that is stopped is left at once.
        assert!(sender.selector.stopped(Q, at(sender.now)));
        assert_eq!(sender.selector.target(), Some(H));
        sender.run(6_000);
        assert_eq!(sender.current(), Q, "it was sent again");
        // A sender that pauses, as a screen without changes does, is no reason for a switch.
        let switches = sender.switches.len();
        sender.now += 60_000;
        sender.run(5_000);
        assert_eq!(sender.switches.len(), switches);
        let stopped = [Q, F, H].map(|encoding| sender.selector.stopped(encoding, at(sender.now)));
        assert_eq!(stopped, [true, true, false]);
    }

    #[test]
    fn an_encoding_whose_losses_are_not_repaired_is_avoided_for_a_while() {
        let mut sender = Sender::new();
        sender.want(320, 180);
        for n in 0..UNREPAIRED_MAX {
            assert_eq!(sender.current(), Q, "{n} losses");
            sender.selector.unrepaired(Q, at(sender.now));
            sender.run(200);
        }
        assert_eq!(sender.current(), H);
        sender.run(AVOIDED.as_millis() as u64 + 3_000);
        assert_eq!(sender.current(), Q);
        // Rare losses are not counted together.
        for _ in 0..10 {
            sender.selector.unrepaired(Q, at(sender.now));
            sender.run(5_000);
            assert_eq!(sender.current(), Q);
        }
    }

    #[test]
    fn keyframes_are_requested_of_the_chosen_encoding_until_one_comes() {
        let mut selector = Selector::new(2, None);
        selector.received(Q, Some(SIZES[Q]), at(0));
        selector.received(H, Some(SIZES[H]), at(0));
        assert_eq!(selector.request_due(), Some(at(500)), "nothing is received yet");
        selector.switched(Q, at(10));
        assert_eq!(selector.request_due(), None);
        selector.want(SIZES[H], at(20));
        let requested: Vec<u64> = (20..1_600).filter(|ms| selector.requests(at(*ms)) == [H]).collect();
        assert_eq!(requested, [20, 520, 1_020, 1_520]);
        selector.switched(H, at(1_600));
        assert_eq!((selector.request_due(), selector.current()), (None, Some(H)));
        // An encoding that begins is not asked for the keyframe that it begins with.
        selector.restarted(H);
        selector.switched(Q, at(1_700));
        selector.received(H, Some(SIZES[H]), at(1_700));
        assert_eq!((selector.target(), selector.request_due()), (Some(H), Some(at(2_200))));
        // Without its size an encoding cannot be chosen.
        selector.switched(H, at(1_800));
        selector.restarted(Q);
        selector.received(Q, None, at(1_900));
        assert_eq!(selector.requests(at(1_900)), [Q]);
        assert_eq!(selector.request_due(), Some(at(6_900)));
    }

    proptest! {
        /// Any sequence of tile sizes: switches keep their distance, and the choice follows in the end.
        #[test]
        fn switches_keep_their_distance_and_the_choice_follows(
            wants in prop::collection::vec((0_u32..2_000, 0_u64..4_000), 1..40),
        ) {
            let mut sender = Sender::new();
            for (width, ms) in &wants {
                sender.want(*width, width * 9 / 16);
                sender.run(*ms);
            }
            let begins = sender.switches.iter().take_while(|(ms, _)| *ms < BEGINNING.as_millis() as u64);
            prop_assert!(begins.count() <= 2, "{:?}", sender.switches);
            let later = sender.switches.iter().skip_while(|(ms, _)| *ms < BEGINNING.as_millis() as u64);
            let times: Vec<u64> = later.map(|(ms, _)| *ms).collect();
            prop_assert!(times.windows(2).all(|two| two[1] - two[0] >= DWELL.as_millis() as u64), "{:?}", times);
            sender.run((DWELL + LOWER_HOLD).as_millis() as u64 + 100);
            let wanted = f64::from(wants[wants.len() - 1].0.max(1));
            let distance = |of: usize| (f64::from(SIZES[of].width) / wanted).ln().abs();
            let best = [Q, H, F].map(distance).into_iter().fold(f64::MAX, f64::min);
            // The height of a tile is rounded.
            prop_assert!(distance(sender.current()) - best < 0.01, "{} for {}", sender.current(), wanted);
        }

        /// A tile that alternates between two sizes faster than the hold causes at most one switch.
        #[test]
        fn a_tile_that_flickers_causes_one_switch(
            one in 0_u32..2_000, other in 0_u32..2_000, periods in prop::collection::vec(33_u64..1_900, 2..60),
        ) {
            let mut sender = Sender::new();
            for (n, ms) in periods.iter().enumerate() {
                let width = if n % 2 == 0 { one } else { other };
                sender.want(width, width * 9 / 16);
                sender.run(*ms);
            }
            prop_assert!(sender.switches.len() <= 2, "{:?}", sender.switches);
            let rises = sender.switches.windows(2).all(|two| two[0].1 < two[1].1);
            prop_assert!(rises, "it only rises to the larger of the two: {:?}", sender.switches);
        }

        /// Whatever delivers, an encoding that delivers is received soon.
        #[test]
        fn what_is_received_delivers(
            steps in prop::collection::vec((prop::array::uniform3(any::<bool>()), 0_u32..2_000), 1..20),
        ) {
            let mut sender = Sender::new();
            for (delivers, width) in steps {
                sender.delivers = delivers;
                sender.want(width, width * 9 / 16);
                sender.run(STALLED.as_millis() as u64 + 200);
                prop_assert!(!delivers.contains(&true) || delivers[sender.current()], "{:?}", delivers);
            }
        }
    }
}
