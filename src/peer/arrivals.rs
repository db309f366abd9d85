//! How what we send arrives, packet by packet, by the peer's transport-wide feedback.
//!
//! Owns: [`Arrivals`], which stands where the crate's congestion control wants an estimator, and hands everything to
//! [`Downlink`]; a way that is back after it was gone begins with a keyframe. Does not know: tiers. The crate's own estimator
//! (GCC) is not used: it grows by eight percent a second whether or not the link is tried, so from 80 kbit/s to 1.5 Mbit/s it
//! takes 38 s, and it cannot say what a link would carry.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::interceptor::{BandwidthEstimator, PacketReport};
use tokio::sync::watch;

use super::tap::Seen;
use crate::tier::{Arrival, Downlink, Reception};
use crate::time::Timestamp;

/// Bytes on the wire around an RTP packet: IP, UDP and the tag of SRTP.
const AROUND: usize = 28 + 16;
/// Feedbacks whose range is remembered: they come every 50 to 250 ms, and what one says is lost is passed on with the next
/// arrival.
const COVERED_MAX: usize = 32;

/// Which packets the latest feedbacks tell of, by first number and count. The crate calls lost whatever it was told nothing of,
/// also what a feedback would have told of that was lost itself, and what left before the first one that the receiver counts.
#[derive(Debug, Default)]
pub(super) struct Covered(VecDeque<(u16, u16)>);

impl Covered {
    /// A feedback tells of so many packets from this transport-wide sequence number on.
    pub(super) fn add(&mut self, first: u16, count: u16) {
        if self.0.len() == COVERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((first, count));
    }

    fn has(&self, number: u16) -> bool {
        self.0.iter().any(|(first, count)| number.wrapping_sub(*first) < *count)
    }
}

/// The estimator of one connection.
pub(super) struct Arrivals {
    downlink: Downlink,
    /// Departures count from here: only differences between them mean something.
    zero: Option<Instant>,
    latest: watch::Sender<Option<Reception>>,
    seen: Arc<Seen>,
}

impl Arrivals {
    /// An estimator, and where its latest finding can be read.
    pub(super) fn new(seen: Arc<Seen>) -> (Self, watch::Receiver<Option<Reception>>) {
        let (latest, reader) = watch::channel(None);
        (Self { downlink: Downlink::default(), zero: None, latest, seen }, reader)
    }
}

impl BandwidthEstimator for Arrivals {
    fn on_reports(&mut self, _: Instant, reports: &[PacketReport]) {
        let Some(first) = reports.first() else { return };
        let zero = *self.zero.get_or_insert(first.departure);
        let covered = self.seen.covered.lock();
        let arrivals: Vec<Arrival> = reports
            .iter()
            // An arrival without a time says nothing, not even that the packet was lost.
            .filter(|report| report.arrived == report.arrival.is_some())
            .map(|report| Arrival {
                // One second's grace for packets that left before the first that was reported on.
                departure: Timestamp::default()
                    + Duration::from_secs(1)
                    + report.departure.saturating_duration_since(zero),
                arrival: report.arrival,
                told: report.arrived || covered.has(report.twcc_sequence_number),
                size: report.size + AROUND,
            })
            .collect();
        drop(covered);
        if self.downlink.report(&arrivals) {
            // Who gets pictures that nothing leads to asks for another only after seconds.
            self.seen.keyframe_wanted.notify_one();
        }
        self.latest.send_replace(self.downlink.reception());
    }

    fn target_bitrate(&self) -> f64 {
        // Nobody paces by it; see [`crate::tier::Pacer`].
        f64::MAX
    }
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::transport_feedbacks::cc_feedback_report::Ecn;

    use super::*;

    #[test]
    fn ranges_wrap_as_numbers_do() {
        let mut covered = Covered::default();
        covered.add(65_530, 10);
        let has: Vec<bool> = [65_529, 65_530, 65_535, 3, 4].map(|number| covered.has(number)).into();
        assert_eq!(has, [false, true, true, true, false]);
        (0..COVERED_MAX).for_each(|_| covered.add(100, 5));
        assert!(!covered.has(65_530), "that was long ago");
    }

    /// Of a hundred packets ten did not arrive in the middle of what feedbacks tell of, and ten where a feedback is missing.
    #[test]
    fn what_a_lost_feedback_would_have_told_of_is_not_lost() {
        let (mut arrivals, latest) = Arrivals::new(Arc::default());
        let start = tokio::time::Instant::now().into_std();
        let report = |n: u16| {
            let arrived = !(55..65).contains(&n) && !(75..85).contains(&n);
            PacketReport {
                ssrc: 1,
                id: n.into(),
                rtp_sequence_number: n,
                is_twcc: true,
                twcc_sequence_number: n,
                size: 1_000,
                arrived,
                departure: start + Duration::from_millis(10) * n.into(),
                arrival: arrived.then(|| Duration::from_millis(10) * n.into()),
                ecn: Ecn::NotEct,
            }
        };
        arrivals.on_reports(start, &(0..30).map(report).collect::<Vec<_>>());
        for (first, count) in [(0, 75), (85, 15)] {
            arrivals.seen.covered.lock().add(first, count);
        }
        arrivals.on_reports(start, &(30..100).map(report).collect::<Vec<_>>());
        let lost = latest.borrow().expect("packets have arrived").lost;
        assert!((lost - 10.0 / 90.0).abs() < 0.005, "{lost}");
    }
}
