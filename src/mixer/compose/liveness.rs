//! Liveness: whether a source sends pictures, is lost, or was stopped.
//!
//! Owns: the limits, and when a state ends. Does not know: slots, what is drawn. In: the times of the newest frame, and
//! of the newest packet of the participant's microphone. Out: [`Liveness`]. Pure: time is an argument.

use std::time::Duration;

use crate::media::SourceKind;
use crate::time::Timestamp;

/// A camera without a frame for so long is stale.
const CAMERA_STALE: Duration = Duration::from_secs(2);
/// The same for a screen, which sends few frames while it is unchanged.
const SCREEN_STALE: Duration = Duration::from_secs(10);
/// Without a packet of its microphone for so long, the sender of a stale source counts as lost.
pub(super) const LOST: Duration = Duration::from_secs(2);
/// After so long a lost sender has left, because its consent has expired (RFC 7675): a source that is still there was
/// stopped.
const STOPPED: Duration = Duration::from_secs(30);
/// The resolution of times.
const MICROSECOND: Duration = Duration::from_micros(1);

/// The state of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    /// Frames come.
    Live,
    /// Nothing comes from its sender: the last frame is shown in grey.
    Lost,
    /// Its sender is there, but sends no frames: the avatar is shown.
    Stopped,
}

/// The state of a source whose newest frame came at `arrival`, and the newest packet of its microphone at `heard`.
pub(super) fn liveness(kind: SourceKind, now: Timestamp, arrival: Timestamp, heard: Timestamp) -> Liveness {
    match now.since(arrival) {
        age if age <= stale_after(kind) => Liveness::Live,
        age if age <= STOPPED && now.since(heard) > LOST => Liveness::Lost,
        _ => Liveness::Stopped,
    }
}

/// When the state of a source changes if it sends nothing; None if it does not.
pub(super) fn next_change(kind: SourceKind, now: Timestamp, arrival: Timestamp, heard: Timestamp) -> Option<Timestamp> {
    let present = liveness(kind, now, arrival, heard);
    let limits = [arrival + stale_after(kind), heard + LOST, arrival + STOPPED];
    let ends = limits.into_iter().map(|limit| limit + MICROSECOND);
    ends.filter(|end| *end > now && liveness(kind, *end, arrival, heard) != present).min()
}

const fn stale_after(kind: SourceKind) -> Duration {
    if matches!(kind, SourceKind::Screen) { SCREEN_STALE } else { CAMERA_STALE }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(60_000_000 + ms * 1_000)
    }

    /// The states that follow each other from `now` on, each with the milliseconds after which it begins.
    fn course(kind: SourceKind, arrival: u64, heard: u64, now: u64) -> Vec<(u64, Liveness)> {
        let mut course = vec![(now, liveness(kind, at(now), at(arrival), at(heard)))];
        let mut now = at(now);
        while let Some(next) = next_change(kind, now, at(arrival), at(heard)) {
            course.push((next.since(at(0)).as_millis() as u64, liveness(kind, next, at(arrival), at(heard))));
            now = next;
        }
        course
    }

    #[test]
    fn a_sender_without_frames_and_sound_is_lost_and_has_stopped_after_30_s() {
        use Liveness::{Live, Lost, Stopped};
        let camera = course(SourceKind::Camera, 100, 100, 100);
        assert_eq!(camera, [(100, Live), (2_100, Lost), (30_100, Stopped)]);
        let screen = course(SourceKind::Screen, 100, 100, 100);
        assert_eq!(screen, [(100, Live), (10_100, Lost), (30_100, Stopped)]);
    }

    #[test]
    fn a_camera_that_was_stopped_is_lost_when_its_microphone_ends_too() {
        use Liveness::{Live, Lost, Stopped};
        let camera = course(SourceKind::Camera, 100, 5_000, 100);
        assert_eq!(camera, [(100, Live), (2_100, Stopped), (7_000, Lost), (30_100, Stopped)]);
        assert_eq!(course(SourceKind::Camera, 100, 60_000, 40_000), [(40_000, Stopped)]);
    }

    proptest! {
        /// No state changes before the time that was announced.
        #[test]
        fn a_state_lasts_until_its_announced_end(
            screen in any::<bool>(),
            (arrival, heard) in (0..40_000_u64, 0..40_000_u64),
            (now, later) in (0..80_000_u64, 1..40_000_u64),
        ) {
            let kind = if screen { SourceKind::Screen } else { SourceKind::Camera };
            let now = now.max(arrival).max(heard);
            let state = |ms| liveness(kind, at(ms), at(arrival), at(heard));
            match next_change(kind, at(now), at(arrival), at(heard)) {
                Some(end) if at(now + later) >= end => {
                    prop_assert!(liveness(kind, end, at(arrival), at(heard)) != state(now));
                }
                _ => prop_assert_eq!(state(now + later), state(now)),
            }
        }
    }
}
