//! How what we send arrives, packet by packet, by the peer's transport-wide feedback.
//!
//! Owns: [`Arrivals`], which stands where the crate's congestion control wants an estimator, and hands everything to
//! [`Downlink`]; a way that is back after it was gone begins with a keyframe. Does not know: tiers. The crate's own estimator
//! (GCC) is not used: it grows by eight percent a second whether or not the link is tried, so from 80 kbit/s to 1.5 Mbit/s it
//! takes 38 s, and it cannot say what a link would carry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::interceptor::{BandwidthEstimator, PacketReport};
use tokio::sync::watch;

use super::tap::Seen;
use crate::tier::{Arrival, Downlink, Reception};
use crate::time::Timestamp;

/// Bytes on the wire around an RTP packet: IP, UDP and the tag of SRTP.
const AROUND: usize = 28 + 16;

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
                size: report.size + AROUND,
            })
            .collect();
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
