//! Whether a filter keeps up.
//!
//! Owns: [`Judge`]. Does not know: filters, threads, clocks. In: each frame that goes into a filter, and how many have
//! come out with which CPU time since its start. Out: at every [`WINDOW`] frames what a frame costs, and whether the
//! filter is to be removed. A window is a number of frames and not a time, so that a source with one frame a second is
//! judged like a camera.

use std::time::Duration;

use crate::filter::Removal;

/// Frames from one judgement to the next: 3 s at 30 frames a second, and 1.8 s of audio.
pub(super) const WINDOW: u32 = 90;

/// Judges one filter.
#[derive(Debug)]
pub(super) struct Judge {
    budget: Duration,
    pushed: u32,
    /// Frames that had come out, and the CPU time, at the last judgement.
    before: (u64, Duration),
}

/// What a judge has found at the end of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    /// Frames that have come out in the window.
    pub(super) frames: u64,
    /// CPU time of the window.
    pub(super) cpu: Duration,
    /// Why the filter is to be removed.
    pub(super) removal: Option<(Removal, String)>,
}

impl Judgement {
    /// CPU time of a frame; zero if none came out.
    pub(super) fn cpu_per_frame(&self) -> Duration {
        u32::try_from(self.frames).ok().filter(|frames| *frames > 0).map_or(Duration::ZERO, |frames| self.cpu / frames)
    }
}

impl Judge {
    /// A judge of a filter that may take so much CPU time for a frame.
    pub(super) fn new(budget: Duration) -> Self {
        Self { budget, pushed: 0, before: (0, Duration::ZERO) }
    }

    /// A frame goes into the filter, out of which so many have come since its start with this CPU time.
    pub(super) fn pushed(&mut self, came: u64, cpu: Duration) -> Option<Judgement> {
        self.pushed += 1;
        if self.pushed < WINDOW {
            return None;
        }
        self.pushed = 0;
        let (came_before, cpu_before) = std::mem::replace(&mut self.before, (came, cpu));
        let (frames, cpu) = (came.saturating_sub(came_before), cpu.saturating_sub(cpu_before));
        let mut judgement = Judgement { frames, cpu, removal: None };
        let (cost, budget) = (judgement.cpu_per_frame(), self.budget);
        judgement.removal = if frames == 0 {
            Some((Removal::Stalled, format!("none of {WINDOW} frames came out of it")))
        } else if frames < u64::from(WINDOW / 2) {
            Some((Removal::Slow, format!("only {frames} of {WINDOW} frames came out of it")))
        } else if cost > budget {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let text = format!("a frame takes {:.1} ms of CPU time, and {} ms are allowed", ms(cost), ms(budget));
            Some((Removal::Slow, text))
        } else {
            None
        };
        Some(judgement)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Duration = Duration::from_millis(20);

    /// The judgement of the first window, in which so many frames come out with this CPU time each.
    fn judged(frames: u32, cost: Duration) -> Judgement {
        let mut judge = Judge::new(BUDGET);
        let judgements = (1..=WINDOW).filter_map(|_| judge.pushed(frames.into(), cost * frames));
        judgements.last().expect("the window has ended")
    }

    #[test]
    fn a_filter_is_removed_for_its_cpu_time_or_for_frames_that_do_not_come_out() {
        let removal = |frames, ms| judged(frames, Duration::from_millis(ms)).removal.map(|(why, _)| why);
        assert_eq!(removal(WINDOW, 20), None);
        assert_eq!(removal(WINDOW / 2, 20), None);
        assert_eq!(removal(WINDOW, 21), Some(Removal::Slow));
        assert_eq!(removal(WINDOW / 2 - 1, 1), Some(Removal::Slow));
        assert_eq!(removal(0, 0), Some(Removal::Stalled));
        let (_, text) = judged(WINDOW, Duration::from_millis(21)).removal.expect("slow");
        assert_eq!(text, "a frame takes 21.0 ms of CPU time, and 20 ms are allowed");
    }

    proptest! {
        /// Each window is judged by itself, whatever came before.
        #[test]
        fn every_window_is_judged_alone(windows in prop::collection::vec((0..=WINDOW, 0..40_u64), 1..6)) {
            let (mut judge, mut came, mut cpu) = (Judge::new(BUDGET), 0, Duration::ZERO);
            for (frames, ms) in windows {
                for n in 1..=WINDOW {
                    came += u64::from(n <= frames);
                    cpu += if n <= frames { Duration::from_millis(ms) } else { Duration::ZERO };
                    let judgement = judge.pushed(came, cpu);
                    prop_assert_eq!(judgement.is_some(), n == WINDOW);
                    if let Some(judgement) = judgement {
                        prop_assert_eq!(judgement, judged(frames, Duration::from_millis(ms)));
                    }
                }
            }
        }
    }
}
