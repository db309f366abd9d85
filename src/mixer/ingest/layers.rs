//! Which spatial layers of a source are decoded: up to the one nearest to the size at which it is shown.
//!
//! Owns: the sizes of the layers (RFC 9628 section 4.2.1) and the choice. Does not know: packets, decoders. A lower
//! layer is chosen after a while, with any picture, since it needs no higher one; a higher layer is chosen with a
//! keyframe, which is requested. The times are those of simulcast encodings. Pure: time is an argument.

use crate::media::Size;
use crate::simulcast::{DWELL, LOWER_HOLD, nearest};
use crate::time::Timestamp;

/// The layers of one source.
#[derive(Debug, Default)]
pub(super) struct SpatialLayers {
    /// The smallest first; less than two for a source without layers.
    sizes: Vec<Size>,
    wanted: Option<Size>,
    highest: usize,
    switched: Option<Timestamp>,
    /// Since when a lower layer is enough.
    lower_since: Option<Timestamp>,
}

impl SpatialLayers {
    /// The size at which the source is shown at most.
    pub(super) fn want(&mut self, size: Size) {
        self.wanted = Some(size);
    }

    /// A keyframe with layers of these sizes; empty for one that does not say so.
    pub(super) fn keyframe(&mut self, sizes: Vec<Size>, now: Timestamp) {
        let is_new = self.sizes.len() != sizes.len();
        self.sizes = sizes;
        let best = self.best();
        if is_new {
            (self.highest, self.switched, self.lower_since) = (best, None, None);
        } else if best > self.highest && !self.dwells(now) {
            (self.highest, self.switched) = (best, Some(now));
        }
    }

    /// The highest layer to decode of the next picture.
    pub(super) fn highest(&mut self, now: Timestamp) -> u8 {
        if self.sizes.len() < 2 {
            return u8::MAX;
        }
        let best = self.best();
        if best < self.highest {
            let since = *self.lower_since.get_or_insert(now);
            if now.since(since) >= LOWER_HOLD && !self.dwells(now) {
                (self.highest, self.switched, self.lower_since) = (best, Some(now), None);
            }
        } else {
            self.lower_since = None;
        }
        self.highest as u8
    }

    /// Whether a higher layer waits for a keyframe.
    pub(super) fn needs_keyframe(&self, now: Timestamp) -> bool {
        self.sizes.len() > 1 && self.best() > self.highest && !self.dwells(now)
    }

    fn best(&self) -> usize {
        let last = self.sizes.len().saturating_sub(1);
        self.wanted.and_then(|wanted| nearest(self.sizes.iter().copied().enumerate(), wanted)).unwrap_or(last)
    }

    fn dwells(&self, now: Timestamp) -> bool {
        self.switched.is_some_and(|at| now.since(at) < DWELL)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZES: [Size; 3] = [Size::new(320, 180), Size::new(640, 360), Size::new(1280, 720)];

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    #[test]
    fn a_source_without_layers_is_decoded_whole() {
        let mut layers = SpatialLayers::default();
        layers.want(SIZES[0]);
        for sizes in [vec![], vec![SIZES[2]]] {
            layers.keyframe(sizes, at(0));
            assert_eq!((layers.highest(at(5_000)), layers.needs_keyframe(at(5_000))), (u8::MAX, false));
        }
    }

    #[test]
    fn a_lower_layer_is_chosen_after_a_while_and_a_higher_one_with_a_keyframe() {
        let mut layers = SpatialLayers::default();
        layers.keyframe(SIZES.to_vec(), at(0));
        assert_eq!(layers.highest(at(0)), 2, "before a size is known");
        layers.want(Size::new(427, 240));
        assert_eq!([100, 2_000, 2_100].map(|ms| layers.highest(at(ms))), [2, 2, 0]);
        layers.want(Size::new(640, 360));
        assert_eq!([5_599, 5_600].map(|ms| layers.needs_keyframe(at(ms))), [false, true]);
        assert_eq!(layers.highest(at(5_650)), 0, "not without a keyframe");
        layers.keyframe(SIZES.to_vec(), at(5_700));
        assert_eq!((layers.highest(at(5_700)), layers.needs_keyframe(at(9_000))), (1, false));
        // With fewer layers the choice begins anew.
        layers.keyframe(SIZES[..2].to_vec(), at(5_800));
        assert_eq!(layers.highest(at(5_800)), 1);
    }

    proptest! {
        /// Whatever is wanted: changes keep their distance, and a higher layer begins with a keyframe.
        #[test]
        fn changes_keep_their_distance(
            steps in prop::collection::vec((0_u32..2_000, any::<bool>(), 0_u64..1_500), 1..100),
        ) {
            let mut layers = SpatialLayers::default();
            layers.want(SIZES[1]);
            layers.keyframe(SIZES.to_vec(), at(0));
            let (mut now, mut before, mut changes) = (0, layers.highest(at(0)), Vec::new());
            for (width, keyframe, ms) in steps {
                now += ms;
                layers.want(Size::new(width, width * 9 / 16));
                if keyframe {
                    layers.keyframe(SIZES.to_vec(), at(now));
                }
                let highest = layers.highest(at(now));
                prop_assert!(highest <= before || keyframe);
                if highest != before {
                    changes.push(now);
                }
                before = highest;
            }
            let dwell = DWELL.as_millis() as u64;
            prop_assert!(changes.windows(2).all(|two| two[1] - two[0] >= dwell), "{:?}", changes);
        }
    }
}
