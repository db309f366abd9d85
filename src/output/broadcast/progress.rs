//! How a broadcast does, as the sender sees it.
//!
//! Owns: what becomes of the report with each connection and each piece, and the times that a far end is told.
//! Does not know: how anything is sent.

use std::time::Duration;

use super::queue::Piece;
use crate::media::{AUDIO_RATE, VIDEO_CLOCK};
use crate::output::Desk;
use crate::room::document::OutputState;

/// Frames further apart do not belong to one stretch of media.
const STRETCH: u64 = VIDEO_CLOCK as u64;

/// Tells the desk.
pub(super) struct Progress {
    desk: Desk,
    /// A piece was sent on this connection.
    live: bool,
    /// A piece was sent on any.
    ever: bool,
    /// Time of the last frame, in its ticks.
    last: Option<u64>,
    /// Time of the first frame ever sent: times at the far end count from here.
    base: Option<Duration>,
}

impl Progress {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk, live: false, ever: false, last: None, base: None }
    }

    /// Whether a piece was sent on this connection.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    /// Whether a piece was ever sent.
    pub(super) const fn was_live(&self) -> bool {
        self.ever
    }

    /// A piece of so many bytes on the wire was sent.
    pub(super) fn sent(&mut self, piece: &Piece, bytes: usize) {
        let mut stretch = 0;
        if let Piece::Video { time, .. } = piece {
            stretch = self.last.map_or(0, |last| time.saturating_sub(last));
            self.last = Some(*time);
        }
        let begins = !self.live;
        (self.live, self.ever) = (true, true);
        self.desk.report(|report| {
            report.bytes += bytes as u64;
            if stretch <= STRETCH {
                report.duration += ticks(stretch, VIDEO_CLOCK);
            }
            if begins {
                (report.state, report.reason) = (OutputState::Live, None);
            }
        });
    }

    /// The connection is gone, or was not made, for the `failures`th time in a row; it is tried again after a rest.
    pub(super) fn lost(&mut self, why: &str, failures: u32, rest: Duration) {
        let again = if self.live { 1 } else { 0 };
        self.live = false;
        let reason = format!("{why}; attempt {} in {:.1} s", failures + 1, rest.as_secs_f64());
        tracing::warn!(reason, "the far end of a broadcast is gone");
        self.desk.report(|report| {
            report.reconnects += again;
            (report.state, report.reason) = (OutputState::Reconnecting, Some(reason));
        });
    }

    /// Nobody takes what is sent, for now.
    pub(super) fn waits(&mut self, why: &str) {
        self.live = false;
        self.desk.report(|report| (report.state, report.reason) = (OutputState::Starting, Some(why.to_owned())));
    }

    /// When a piece is due at the far end: since the first frame ever sent. None for sound before it.
    pub(super) fn due(&mut self, piece: &Piece) -> Option<Duration> {
        let (at, is_frame) = match piece {
            Piece::Video { time, .. } => (ticks(*time, VIDEO_CLOCK), true),
            Piece::Sound { time, .. } => (ticks(*time, AUDIO_RATE), false),
        };
        if self.base.is_none() && is_frame {
            self.base = Some(at);
        }
        at.checked_sub(self.base?)
    }
}

/// How long so many ticks are.
pub(super) fn ticks(count: u64, rate: u32) -> Duration {
    let rate = u64::from(rate);
    Duration::from_secs(count / rate) + Duration::from_nanos(count % rate * 1_000_000_000 / rate)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::output::broadcast::queue::Body;

    fn frame(time: u64) -> Piece {
        Piece::Video { time, keyframe: true, body: Body::Whole(Bytes::from_static(b"frame")) }
    }

    fn sound(time: u64) -> Piece {
        Piece::Sound { time, data: Bytes::from_static(b"sound") }
    }

    #[test]
    fn times_count_from_the_first_frame_and_go_on_over_reconnections() {
        let (desk, _messages) = Desk::new();
        let mut progress = Progress::new(desk.clone());
        assert_eq!(progress.due(&sound(48_000)), None);
        assert_eq!(progress.due(&frame(180_000)), Some(Duration::ZERO));
        assert_eq!(progress.due(&sound(95_999)), None, "older than the first frame");
        assert_eq!(progress.due(&sound(96_480)), Some(Duration::from_millis(10)));
        progress.sent(&frame(180_000), 100);
        progress.sent(&frame(183_000), 50);
        assert_eq!(desk.current().state, OutputState::Live);
        progress.lost("gone", 1, Duration::from_secs(1));
        let report = desk.current();
        assert_eq!((report.state, report.reconnects, report.bytes), (OutputState::Reconnecting, 1, 150));
        assert_eq!(report.reason.as_deref(), Some("gone; attempt 2 in 1.0 s"));
        progress.lost("still gone", 2, Duration::from_secs(2));
        assert_eq!(desk.current().reconnects, 1, "it was not there meanwhile");
        progress.sent(&frame(90_000 * 60), 10);
        assert_eq!(progress.due(&frame(90_000 * 60)), Some(Duration::from_secs(58)));
        assert_eq!(desk.current().duration, Duration::from_nanos(33_333_333), "nothing was sent in between");
    }
}
