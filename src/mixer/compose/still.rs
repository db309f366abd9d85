//! Still sources: whether a decoded picture differs from the one that is shown.
//!
//! Owns: the comparison of two pictures, and which small differences are shown nevertheless. Does not know: tiles,
//! decoders. In: two pictures and the time. Out: whether to show the newer one.
//!
//! A camera that films a still picture sends pictures that differ by the noise of its sensor and of its encoder. They
//! are compared with the picture that is shown, not with the one before, so that slow changes add up.
//!
//! Rules
//! 1. A block that differs by more than the noise is a movement. The noise is what half of the blocks stay below. So is
//!    a change of the brightness of the whole picture, in which noise is averaged out.
//! 2. A keyframe of a camera that was still is not shown, unless the picture before it was one that was not: it is
//!    coarser than the pictures before and after it. The next picture shows whether there is a movement.
//! 3. Smaller differences are shown for a second after a movement, since they may belong to it; once more after three
//!    seconds, in which the sender's encoder has sharpened its pictures; and then every 30 s.

use std::time::Duration;

use crate::codec::Picture;
use crate::media::SourceKind;
use crate::time::Timestamp;

/// Side of the compared blocks, in pixels of each plane.
const BLOCK: usize = 8;
/// Sum of absolute differences of a block whose pixels differ by one level on average.
const LEVEL: u32 = (BLOCK * BLOCK) as u32;
/// A block that differs by no more than this is unchanged.
const UNCHANGED: u32 = 2 * LEVEL;
/// A block that differs by more than this has moved.
const MOVED: u32 = 6 * LEVEL;
/// Between the two a block has moved if it differs by more than this multiple of the noise.
const NOISE_FACTOR: u32 = 5;
/// Step of the histogram by which the noise is measured.
const NOISE_STEP: u32 = LEVEL / 4;
const NOISE_STEPS: usize = (MOVED / NOISE_STEP) as usize + 1;

/// Difference of the average luma of two pictures, in levels, above which the brightness has changed.
const BRIGHTNESS: i64 = 2;

/// Time without a movement after which a source is still.
const STILL_AFTER: Duration = Duration::from_secs(1);
/// Time after a movement at which one more picture is shown that differs, however little.
const REFINED_AFTER: Duration = Duration::from_secs(3);
/// Later one is shown in each such period of the clock, which is the same for all sources.
const REFRESH_MICROS: u64 = 30_000_000;

/// How much two pictures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// Not at all.
    None,
    /// By noise.
    Slight,
    /// By more, or in size.
    Movement,
}

/// What was shown of a source lately.
#[derive(Debug)]
pub(super) struct Stillness {
    kind: SourceKind,
    moved: Timestamp,
    shown: Timestamp,
    /// A picture with slight differences was shown since the source is still.
    refined: bool,
    /// The last picture was a keyframe that differed by a movement, and was not shown.
    waits: bool,
}

impl Stillness {
    pub(super) fn new(kind: SourceKind) -> Self {
        Self { kind, moved: Timestamp::default(), shown: Timestamp::default(), refined: false, waits: false }
    }

    /// A picture is shown without a comparison.
    pub(super) fn begins(&mut self, now: Timestamp) {
        *self = Self { moved: now, shown: now, ..Self::new(self.kind) };
    }

    /// Whether to show a picture, of a `keyframe` or not, that differs by this from the one that is shown.
    pub(super) fn shows(&mut self, difference: Difference, keyframe: bool, now: Timestamp) -> bool {
        let is_still = now.since(self.moved) >= STILL_AFTER;
        let shows = match difference {
            Difference::None => false,
            Difference::Slight if !is_still => true,
            Difference::Slight if !self.refined => now.since(self.moved) >= REFINED_AFTER,
            Difference::Slight => now.as_micros() / REFRESH_MICROS > self.shown.as_micros() / REFRESH_MICROS,
            Difference::Movement => !keyframe || !is_still || self.waits || self.kind == SourceKind::Screen,
        };
        self.waits = difference == Difference::Movement && !shows;
        if shows {
            (self.shown, self.refined) = (now, is_still);
            if difference == Difference::Movement {
                (self.moved, self.refined) = (now, false);
            }
        }
        shows
    }

    /// Whether there was no movement for a while, and the last picture leaves no doubt.
    pub(super) fn is_still(&self, now: Timestamp) -> bool {
        now.since(self.moved) >= STILL_AFTER && !self.waits
    }
}

/// Compares two pictures of a source.
pub(super) fn difference(kind: SourceKind, shown: &Picture, new: &Picture) -> Difference {
    let size = shown.size();
    if new.size() != size {
        return Difference::Movement;
    }
    let moved = if kind == SourceKind::Screen { UNCHANGED } else { MOVED };
    let (mut most, mut is_equal, mut brighter) = (0, true, 0_i64);
    let mut noise = [0_u32; NOISE_STEPS];
    for plane in 0..3 {
        let half = u32::from(plane > 0);
        let (width, height) = ((size.width + half) >> half, (size.height + half) >> half);
        let (width, height) = (width as usize, height as usize);
        let ((before, before_stride), (after, after_stride)) = (shown.plane(plane), new.plane(plane));
        let mut sums = vec![0_u32; width.div_ceil(BLOCK)];
        for top in (0..height).step_by(BLOCK) {
            sums.fill(0);
            for row in top..height.min(top + BLOCK) {
                let (before, after) = (&before[row * before_stride..][..width], &after[row * after_stride..][..width]);
                // Many rows of a still picture are identical, which is quick to see.
                if before != after {
                    is_equal = false;
                    add_differences(&mut sums, before, after);
                    if plane == 0 {
                        brighter += sum(after) - sum(before);
                    }
                }
            }
            for sum in &sums {
                if *sum > moved {
                    return Difference::Movement;
                }
                most = most.max(*sum);
                noise[(*sum / NOISE_STEP) as usize] += u32::from(plane == 0);
            }
        }
    }
    let pixels = i64::from(size.width) * i64::from(size.height);
    if most > (NOISE_FACTOR * median(&noise)).max(UNCHANGED) || brighter.abs() > BRIGHTNESS * pixels {
        Difference::Movement
    } else if is_equal {
        Difference::None
    } else {
        Difference::Slight
    }
}

fn sum(row: &[u8]) -> i64 {
    let (blocks, rest) = row.as_chunks();
    let blocks: u32 = blocks.iter().map(|block| row_difference(block, &[0; BLOCK])).sum();
    i64::from(blocks + rest.iter().map(|sample| u32::from(*sample)).sum::<u32>())
}

/// Adds the absolute differences of a row to the sums of its blocks.
fn add_differences(sums: &mut [u32], before: &[u8], after: &[u8]) {
    let ((before, before_rest), (after, after_rest)) = (before.as_chunks(), after.as_chunks());
    for ((sum, before), after) in sums.iter_mut().zip(before).zip(after) {
        *sum += row_difference(before, after);
    }
    if let Some(last) = sums.last_mut() {
        let rest = before_rest.iter().zip(after_rest);
        *last += rest.map(|(before, after)| u32::from(before.abs_diff(*after))).sum::<u32>();
    }
}

/// The sum of absolute differences of one row of a block. The number of pixels is fixed, so that the compiler uses one
/// instruction for it (`psadbw`).
#[inline]
fn row_difference(before: &[u8; BLOCK], after: &[u8; BLOCK]) -> u32 {
    before.iter().zip(after).map(|(before, after)| u32::from(before.abs_diff(*after))).sum()
}

/// The sum of absolute differences that half of the blocks stay below.
fn median(noise: &[u32; NOISE_STEPS]) -> u32 {
    let half = noise.iter().sum::<u32>().div_ceil(2);
    let mut below = 0;
    let step = noise.iter().position(|blocks| {
        below += blocks;
        below >= half
    });
    step.unwrap_or_default() as u32 * NOISE_STEP
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::PictureMut;
    use crate::media::Size;

    const SIZE: Size = Size::new(100, 60);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(60_000_000 + ms * 1_000)
    }

    /// A grey picture with the pixels of one plane changed.
    fn changed(plane: usize, change: impl Fn(usize, usize) -> u8) -> Picture {
        let mut picture = PictureMut::new(SIZE);
        let (planes, strides) = picture.planes();
        for (i, samples) in planes.into_iter().enumerate() {
            for (at, sample) in samples.iter_mut().enumerate() {
                let change = if i == plane { change(at % strides[i], at / strides[i]) } else { 0 };
                *sample = 100 + change;
            }
        }
        picture.freeze()
    }

    /// The difference of a picture of a camera to an unchanged one.
    fn of_camera(plane: usize, change: impl Fn(usize, usize) -> u8) -> Difference {
        difference(SourceKind::Camera, &changed(0, |_, _| 0), &changed(plane, change))
    }

    #[test]
    fn a_changed_block_is_a_movement_and_noise_is_not() {
        let in_block = |x: usize, y: usize| u8::from((32..40).contains(&x) && (16..24).contains(&y));
        assert_eq!(of_camera(0, |_, _| 0), Difference::None);
        assert_eq!(of_camera(0, |x, y| ((x + y) % 2 * 3) as u8), Difference::Slight);
        assert_eq!(of_camera(0, |x, y| 3 * in_block(x, y)), Difference::Movement, "without noise");
        assert_eq!(of_camera(0, |x, y| ((x + y) % 2 * 2) as u8 + 3 * in_block(x, y)), Difference::Slight, "in noise");
        assert_eq!(of_camera(0, |x, y| ((x + y) % 2 * 2) as u8 + 7 * in_block(x, y)), Difference::Movement);
        assert_eq!(of_camera(0, |_, _| 3), Difference::Movement, "the light has changed");
        assert_eq!(of_camera(2, |_, _| 3), Difference::Movement, "the colour has changed");
        let other = Picture::filled(Size::new(98, 60), 100, 100, 100);
        assert_eq!(difference(SourceKind::Camera, &changed(0, |_, _| 0), &other), Difference::Movement);
    }

    #[test]
    fn one_pixel_of_text_on_a_screen_is_a_movement() {
        let still = changed(0, |_, _| 0);
        let cursor = changed(0, |x, y| 150 * u8::from((x, y) == (99, 59)));
        assert_eq!(difference(SourceKind::Screen, &still, &cursor), Difference::Movement);
        let mut stillness = Stillness::new(SourceKind::Screen);
        stillness.begins(at(0));
        assert!(stillness.shows(Difference::Movement, true, at(9_000)), "at once: it may be the only picture");
    }

    #[test]
    fn slight_differences_are_shown_for_a_second_after_a_movement_at_three_seconds_and_then_every_30_s() {
        let mut stillness = Stillness::new(SourceKind::Camera);
        stillness.begins(at(0));
        let shown: Vec<u64> = (1..70_000).filter(|ms| stillness.shows(Difference::Slight, false, at(*ms))).collect();
        assert_eq!(shown, (1..1_000).chain([3_000, 30_000, 60_000]).collect::<Vec<_>>());
        assert!(!stillness.shows(Difference::None, false, at(100_000)));
    }

    #[test]
    fn a_coarse_keyframe_of_a_still_camera_is_not_shown_and_a_movement_is_at_once() {
        let mut stillness = Stillness::new(SourceKind::Camera);
        stillness.begins(at(0));
        assert!(stillness.shows(Difference::Movement, true, at(40)), "it was not still");
        assert!(!stillness.shows(Difference::Movement, true, at(2_000)), "coarse");
        assert!(!stillness.shows(Difference::Slight, false, at(2_040)), "it is still");
        assert!(!stillness.shows(Difference::Movement, true, at(4_000)));
        assert!(stillness.shows(Difference::Movement, true, at(4_040)), "each picture is a keyframe");
        assert!(stillness.shows(Difference::Movement, false, at(9_000)), "it may be the only picture");
    }

    proptest! {
        #[test]
        fn sums_of_rows_and_blocks_are_exact(rows in prop::collection::vec(any::<(u8, u8)>(), 1..200)) {
            let (before, after): (Vec<u8>, Vec<u8>) = rows.into_iter().unzip();
            let total = |row: &[u8]| row.iter().map(|sample| i64::from(*sample)).sum::<i64>();
            prop_assert_eq!((sum(&before), sum(&after)), (total(&before), total(&after)));
            let mut sums = vec![7; before.len().div_ceil(BLOCK)];
            add_differences(&mut sums, &before, &after);
            for (i, (before, after)) in before.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate() {
                let differs = |(before, after): (&u8, &u8)| i64::from(*before) - i64::from(*after);
                let expected: i64 = before.iter().zip(after).map(|pair| differs(pair).abs()).sum();
                prop_assert_eq!(i64::from(sums[i]), 7 + expected);
            }
        }

        /// A picture that changes slowly is shown before it differs by more than two levels, also if all are keyframes.
        #[test]
        fn slow_changes_add_up(step in 1..40_u64, keyframe in any::<bool>()) {
            let mut stillness = Stillness::new(SourceKind::Camera);
            stillness.begins(at(0));
            let mut shown = 0_u8;
            for n in 0..100 {
                let level = (n * step / 20).min(150) as u8;
                let pictures = (changed(0, |_, _| shown), changed(0, |_, _| level));
                let difference = difference(SourceKind::Camera, &pictures.0, &pictures.1);
                if stillness.shows(difference, keyframe, at(10_000 + n * 33)) {
                    shown = level;
                }
                // A keyframe waits for one more picture.
                let most = 2 + if keyframe { step.div_ceil(20) } else { 0 };
                prop_assert!(u64::from(level.abs_diff(shown)) <= most, "{} shown as {}", level, shown);
            }
        }
    }
}
