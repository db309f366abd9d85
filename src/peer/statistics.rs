//! How a received RTP stream arrives, as receiver reports say it (RFC 3550 appendix A).
//!
//! Owns: [`ReceptionStatistics`] of one stream. Does not know: RTCP packets' order, what is received. Pure.

use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;

use crate::time::Timestamp;

/// A cumulative number of lost packets has 24 bits, one of them a sign (RFC 3550 section 6.4.1).
const LOST_MAX: i64 = 0x7f_ffff;
/// A jump by more than this begins the stream anew (RFC 3550 appendix A.1, MAX_DROPOUT).
const DROPOUT_MAX: u16 = 3_000;

#[derive(Debug, Default)]
pub(super) struct ReceptionStatistics {
    /// First and highest sequence number, unwrapped; None before the first packet.
    range: Option<(u64, u64)>,
    received: u64,
    /// Expected and received as of the report before.
    reported: (u64, u64),
    /// Transit time of the packet before, in ticks of the stream's clock.
    transit: Option<u32>,
    /// Interarrival jitter, in sixteenths of a tick.
    jitter: u32,
    /// The middle 32 bits of the latest sender report's NTP time, and when it came.
    sender_report: Option<(u32, Timestamp)>,
}

impl ReceptionStatistics {
    /// A packet has arrived that is no retransmission. `clock_rate` is that of its timestamp, in Hz.
    pub(super) fn received(&mut self, sequence: u16, timestamp: u32, clock_rate: u32, now: Timestamp) {
        let sequence = u64::from(sequence);
        let (first, highest) = *self.range.get_or_insert((sequence, sequence));
        let ahead = (sequence as u16).wrapping_sub(highest as u16);
        if ahead < DROPOUT_MAX {
            self.range = Some((first, highest + u64::from(ahead)));
        } else if ahead < u16::MAX - DROPOUT_MAX {
            *self = Self { jitter: self.jitter, sender_report: self.sender_report, ..Self::default() };
            self.range = Some((sequence, sequence));
        }
        self.received += 1;
        let arrival = (u128::from(now.as_micros()) * u128::from(clock_rate) / 1_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let difference = transit.wrapping_sub(before) as i32;
            // A sender that pauses, or jumps in time, is no jitter.
            if difference.unsigned_abs() < clock_rate {
                self.jitter = self.jitter + difference.unsigned_abs() - ((self.jitter + 8) >> 4);
            }
        }
    }

    /// The sender's report, to which the next report of ours refers.
    pub(super) fn sender_report(&mut self, report: &SenderReport, now: Timestamp) {
        self.sender_report = Some(((report.ntp_time >> 16) as u32, now));
    }

    /// Whether a packet has arrived.
    pub(super) fn has_received(&self) -> bool {
        self.range.is_some()
    }

    /// Packets that never arrived.
    pub(super) fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    /// Interarrival jitter, in ticks of the stream's clock.
    pub(super) fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    fn expected(&self) -> u64 {
        self.range.map_or(0, |(first, highest)| highest - first + 1)
    }

    /// The next report; None before the first packet.
    pub(super) fn report(&mut self, ssrc: u32, now: Timestamp) -> Option<ReceptionReport> {
        let (_, highest) = self.range?;
        let (expected, received) = (self.expected(), self.received);
        let (expected_now, received_now) = (expected - self.reported.0, received - self.reported.1);
        self.reported = (expected, received);
        let lost_now = expected_now.saturating_sub(received_now);
        let delay = self.sender_report.map_or(0, |(_, at)| (now.since(at).as_micros() * 65_536 / 1_000_000) as u32);
        Some(ReceptionReport {
            ssrc,
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            total_lost: (expected as i64 - received as i64).clamp(0, LOST_MAX) as u32,
            last_sequence_number: highest as u32,
            jitter: self.jitter(),
            last_sender_report: self.sender_report.map_or(0, |(ntp, _)| ntp),
            delay,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(5_000_000 + ms * 1_000)
    }

    #[test]
    fn reports_count_losses_since_the_report_before_over_the_wrap_of_numbers() {
        let mut statistics = ReceptionStatistics::default();
        assert!(statistics.report(7, at(0)).is_none(), "nothing has arrived");
        for n in 0..100_u64 {
            if n % 4 != 1 {
                statistics.received(65_500_u16.wrapping_add(n as u16), n as u32 * 900, 90_000, at(n * 10));
            }
        }
        let report = statistics.report(7, at(1_000)).expect("packets have arrived");
        assert_eq!((report.ssrc, report.fraction_lost, report.total_lost), (7, 64, 25));
        assert_eq!((report.last_sequence_number, report.jitter), (65_599, 0));
        let quiet = statistics.report(7, at(2_000)).expect("packets have arrived");
        assert_eq!((quiet.fraction_lost, quiet.total_lost), (0, 25));
    }

    #[test]
    fn the_delay_since_the_last_sender_report_is_in_65536ths_of_a_second() {
        let mut statistics = ReceptionStatistics::default();
        statistics.received(1, 0, 48_000, at(0));
        let sent = SenderReport { ntp_time: 0x0123_4567_89ab_cdef, ..SenderReport::default() };
        statistics.sender_report(&sent, at(500));
        let report = statistics.report(7, at(1_500)).expect("a packet has arrived");
        assert_eq!((report.last_sender_report, report.delay), (0x4567_89ab, 65_536));
    }

    #[test]
    fn a_stream_that_begins_anew_has_no_losses() {
        let mut statistics = ReceptionStatistics::default();
        (0..10).for_each(|n| statistics.received(n, 0, 90_000, at(0)));
        (0..10).for_each(|n| statistics.received(30_000 + n, 0, 90_000, at(10)));
        assert_eq!(statistics.report(7, at(20)).map(|report| report.total_lost), Some(0));
    }

    proptest! {
        /// What is reported lost never exceeds what is missing, and jitter stays below its largest difference.
        #[test]
        fn losses_and_jitter_are_bounded(
            start in any::<u16>(),
            packets in prop::collection::vec((prop::bool::weighted(0.8), 0..40_u64), 2..300),
        ) {
            let mut statistics = ReceptionStatistics::default();
            let mut now = 0;
            let (mut first, mut last, mut arrived) = (None, 0, 0);
            for (n, (arrives, delay)) in packets.iter().enumerate() {
                now = now.max(n as u64 * 20 + delay);
                if *arrives {
                    first.get_or_insert(n);
                    (last, arrived) = (n, arrived + 1);
                    statistics.received(start.wrapping_add(n as u16), n as u32 * 20, 1_000, at(now));
                }
            }
            if let Some(report) = statistics.report(7, at(now)) {
                let missing = last - first.expect("packets have arrived") + 1 - arrived;
                prop_assert_eq!(report.total_lost as usize, missing);
                prop_assert_eq!(statistics.lost() as usize, missing);
                prop_assert!(report.jitter <= 40 * 20);
            }
        }
    }
}
