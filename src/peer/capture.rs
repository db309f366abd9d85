//! When the packets of a received RTP stream were captured, by its sender reports (RFC 3550 section 6.4.1).
//!
//! Owns: [`CaptureClock`] of one stream. Does not know: other streams of the sender. Pure: time is an argument. In:
//! sender reports. Out: capture times on the sender's clock.

use std::time::Duration;

use rtc::rtcp::sender_report::SenderReport;

use crate::time::Timestamp;

/// A report is not used for longer. Senders report at least every 5 s or so; the clocks of media and of reports drift
/// apart by some milliseconds meanwhile.
const VALID: Duration = Duration::from_secs(60);

/// The relation of RTP timestamps to the sender's clock.
#[derive(Debug, Default)]
pub(super) struct CaptureClock {
    latest: Option<Report>,
}

#[derive(Debug, Clone, Copy)]
struct Report {
    /// The sender's time in microseconds.
    time: u64,
    /// The same time in ticks of the stream's clock.
    rtp: u32,
    arrival: Timestamp,
}

impl CaptureClock {
    /// Takes a report of the stream.
    pub(super) fn sender_report(&mut self, report: &SenderReport, now: Timestamp) {
        // RFC 3550 section 6.4.1: a sender without a clock reports zero.
        if report.ntp_time == 0 {
            return;
        }
        let (seconds, fraction) = (report.ntp_time >> 32, report.ntp_time & 0xffff_ffff);
        let time = seconds * 1_000_000 + ((fraction * 1_000_000) >> 32);
        self.latest = Some(Report { time, rtp: report.rtp_time, arrival: now });
    }

    /// When the media with this RTP timestamp was captured; None without a recent report.
    pub(super) fn captured(&self, timestamp: u32, clock_rate: u32, now: Timestamp) -> Option<Timestamp> {
        let Report { time, rtp, arrival } = self.latest?;
        if now.since(arrival) > VALID {
            return None;
        }
        let ticks = i64::from(timestamp.wrapping_sub(rtp).cast_signed());
        Some(Timestamp::from_micros(time.saturating_add_signed(ticks * 1_000_000 / i64::from(clock_rate))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(9_000_000);

    fn report(ntp_time: u64, rtp_time: u32) -> SenderReport {
        SenderReport { ntp_time, rtp_time, ..SenderReport::default() }
    }

    #[test]
    fn without_a_recent_report_of_a_clock_nothing_is_known() {
        let mut clock = CaptureClock::default();
        assert_eq!(clock.captured(7, 90_000, START), None);
        clock.sender_report(&report(0, 7), START);
        assert_eq!(clock.captured(7, 90_000, START), None, "the sender has no clock");
        clock.sender_report(&report(5 << 32, 7), START);
        assert_eq!(clock.captured(7, 90_000, START + VALID), Some(Timestamp::from_micros(5_000_000)));
        assert_eq!(clock.captured(7, 90_000, START + VALID * 2), None, "the report is too old");
    }

    proptest! {
        /// Times before and after the report follow its RTP timestamp, also over the wrap.
        #[test]
        fn timestamps_are_related_to_the_report(
            seconds in 10_u64..4_000_000_000,
            rtp in any::<u32>(),
            ms in -9_000_i64..60_000,
            rate in prop::sample::select(vec![8_000_u32, 48_000, 90_000]),
        ) {
            let mut clock = CaptureClock::default();
            clock.sender_report(&report((seconds << 32) | (1 << 31), rtp), START);
            let ticks = ms * i64::from(rate) / 1_000;
            let timestamp = rtp.wrapping_add(ticks as u32);
            let expected = seconds as i64 * 1_000_000 + 500_000 + ms * 1_000;
            let captured = clock.captured(timestamp, rate, START).expect("there is a report");
            prop_assert_eq!(captured.as_micros() as i64, expected);
        }

        /// No report of a hostile sender overflows.
        #[test]
        fn any_report_gives_a_time(ntp in 1..=u64::MAX, rtp in any::<u32>(), timestamp in any::<u32>()) {
            let mut clock = CaptureClock::default();
            clock.sender_report(&report(ntp, rtp), START);
            prop_assert!(clock.captured(timestamp, 8_000, START).is_some());
        }
    }
}
