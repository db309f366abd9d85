//! Progress of a broadcast, as the sender thread measures it.
//!
//! Owns: the changes of the report at each connection and each piece, and timestamps relative to the first frame. Does
//! not know: protocols. In: sent pieces and lost connections. Out: the report, through the [`Notifier`].

use std::time::Duration;

use super::queue::Piece;
use crate::media::{AUDIO_RATE, VIDEO_CLOCK};
use crate::output::Notifier;
use crate::room::document::OutputState;

/// A larger gap between two frames, in ticks, does not count as sent duration.
const MAX_FRAME_GAP: u64 = VIDEO_CLOCK as u64;

/// Updates the report.
pub(super) struct Progress {
    notifier: Notifier,
    /// A piece was sent on this connection.
    live: bool,
    /// Time of the last frame in ticks.
    last: Option<u64>,
    /// Time of the first frame ever sent: the zero of sent timestamps.
    base: Option<Duration>,
}

impl Progress {
    pub(super) fn new(notifier: Notifier) -> Self {
        Self { notifier, live: false, last: None, base: None }
    }

    /// Whether a piece was sent on this connection.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    /// Records a sent piece; `bytes` is its size on the network.
    pub(super) fn sent(&mut self, piece: &Piece, bytes: usize) {
        let mut gap = 0;
        if let Piece::Video { time, .. } = piece {
            gap = self.last.map_or(0, |last| time.saturating_sub(last));
            self.last = Some(*time);
        }
        let begins = !self.live;
        self.live = true;
        self.notifier.report(|report| {
            report.bytes += bytes as u64;
            if gap <= MAX_FRAME_GAP {
                report.duration += ticks(gap, VIDEO_CLOCK);
            }
            if begins {
                (report.state, report.reason) = (OutputState::Live, None);
            }
        });
    }

    /// Records a lost or failed connection, the `failures`th in a row; the next attempt follows after the delay.
    pub(super) fn lost(&mut self, why: &str, failures: u32, delay: Duration) {
        let again = if self.live { 1 } else { 0 };
        self.live = false;
        let reason = format!("{why}; attempt {} in {:.1} s", failures + 1, delay.as_secs_f64());
        tracing::warn!(reason, "broadcast connection lost");
        self.notifier.report(|report| {
            report.reconnects += again;
            (report.state, report.reason) = (OutputState::Reconnecting, Some(reason));
        });
    }

    /// Records that no receiver is connected at present.
    pub(super) fn waiting(&mut self, why: &str) {
        self.live = false;
        self.notifier.report(|report| (report.state, report.reason) = (OutputState::Starting, Some(why.to_owned())));
    }

    /// Timestamp of a piece since the first frame ever sent. None for audio before it.
    pub(super) fn due(&mut self, piece: &Piece) -> Option<Duration> {
        let (at, is_frame) = match piece {
            Piece::Video { time, .. } => (ticks(*time, VIDEO_CLOCK), true),
            Piece::Audio { time, .. } => (ticks(*time, AUDIO_RATE), false),
        };
        if self.base.is_none() && is_frame {
            self.base = Some(at);
        }
        at.checked_sub(self.base?)
    }
}

/// Converts ticks of a clock to a duration.
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
        Piece::Video { time, keyframe: true, body: Body::AccessUnit(Bytes::from_static(b"frame")) }
    }

    fn sound(time: u64) -> Piece {
        Piece::Audio { time, data: Bytes::from_static(b"sound") }
    }

    #[test]
    fn timestamps_count_from_the_first_frame_and_continue_over_reconnects() {
        let (notifier, _messages) = Notifier::new();
        let mut progress = Progress::new(notifier.clone());
        assert_eq!(progress.due(&sound(48_000)), None);
        assert_eq!(progress.due(&frame(180_000)), Some(Duration::ZERO));
        assert_eq!(progress.due(&sound(95_999)), None, "older than the first frame");
        assert_eq!(progress.due(&sound(96_480)), Some(Duration::from_millis(10)));
        progress.sent(&frame(180_000), 100);
        progress.sent(&frame(183_000), 50);
        assert_eq!(notifier.current().state, OutputState::Live);
        progress.lost("gone", 1, Duration::from_secs(1));
        let report = notifier.current();
        assert_eq!((report.state, report.reconnects, report.bytes), (OutputState::Reconnecting, 1, 150));
        assert_eq!(report.reason.as_deref(), Some("gone; attempt 2 in 1.0 s"));
        progress.lost("still gone", 2, Duration::from_secs(2));
        assert_eq!(notifier.current().reconnects, 1, "it was not connected in between");
        progress.sent(&frame(90_000 * 60), 10);
        assert_eq!(progress.due(&frame(90_000 * 60)), Some(Duration::from_secs(58)));
        assert_eq!(notifier.current().duration, Duration::from_nanos(33_333_333), "nothing was sent in between");
    }
}
