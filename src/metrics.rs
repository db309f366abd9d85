//! Metrics in the OpenMetrics text format.
//!
//! Owns: [`Metrics`], the registry to which every module adds its metrics, and the metrics of the HTTP server. Does not
//! know: what the metrics of other modules mean. In: increments on cloneable handles. Out: [`Metrics::text`].

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::registry::Registry;

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Prefix of all metric names.
const PREFIX: &str = "commingle";

/// The metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Open event streams: WebSockets and server-sent events.
    pub event_streams: Gauge,
    /// Event streams refused because their address has too many.
    pub event_streams_refused: Counter,
    /// WebSockets closed because the client read too slowly.
    pub event_streams_too_slow: Counter,
    /// Changes refused because their caller makes too many.
    pub changes_limited: Counter,
    /// Chat messages refused because their room has too many.
    pub chats_limited: Counter,
    /// Requests with a token that is not valid, by reason.
    pub logins_failed: Family<LoginLabels, Counter>,
    /// Most memory of a child process, in bytes.
    pub process_memory_limit: Family<ProcessLabels, Gauge>,
    /// RTMP connections of encoders that are not authorized yet.
    pub rtmp_pending: Gauge,
    /// RTMP connections closed before they were authorized: too many, too slow, malformed, or not allowed.
    pub rtmp_refused: Counter,
    /// Refused joins by HTTP status.
    pub joins_refused: Family<RefusalLabels, Counter>,
    /// HTTP requests answered.
    pub http_requests: Family<RequestLabels, Counter>,
    /// Open HTTP connections.
    pub http_connections: Gauge,
    /// HTTP connections closed on accept because a connection limit was reached.
    pub http_connections_refused: Counter,
}

/// Labels of refused joins.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// HTTP status code of the response.
    pub status: u16,
}

/// Labels of failed logins.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LoginLabels {
    /// `expired`, or `invalid` for a wrong signature, malformed tokens and unknown sessions.
    pub reason: &'static str,
}

/// Labels of child processes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProcessLabels {
    /// `mixer`, `input` or `output`.
    pub process: &'static str,
}

/// Labels of HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// HTTP method; `other` for an unknown one.
    pub method: &'static str,
    /// Pattern of the route; never the path, which may contain a secret.
    pub route: String,
    /// HTTP status code of the response.
    pub status: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix(PREFIX)),
            event_streams: Gauge::default(),
            event_streams_too_slow: Counter::default(),
            event_streams_refused: Counter::default(),
            changes_limited: Counter::default(),
            chats_limited: Counter::default(),
            logins_failed: Family::default(),
            process_memory_limit: Family::default(),
            rtmp_pending: Gauge::default(),
            rtmp_refused: Counter::default(),
            joins_refused: Family::default(),
            http_requests: Family::default(),
            http_connections: Gauge::default(),
            http_connections_refused: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "event_streams",
                "Open event streams: WebSockets and server-sent events",
                metrics.event_streams.clone(),
            );
            registry.register(
                "event_streams_refused",
                "Event streams refused because their address has too many",
                metrics.event_streams_refused.clone(),
            );
            registry.register(
                "event_streams_too_slow",
                "WebSockets closed because the client read too slowly",
                metrics.event_streams_too_slow.clone(),
            );
            registry.register(
                "changes_limited",
                "Changes refused because their caller makes too many",
                metrics.changes_limited.clone(),
            );
            registry.register(
                "chats_limited",
                "Chat messages refused because their room has too many",
                metrics.chats_limited.clone(),
            );
            registry.register(
                "logins_failed",
                "Requests with a token or session that is not valid, by reason",
                metrics.logins_failed.clone(),
            );
            registry.register(
                "process_memory_limit_bytes",
                "Most memory of a child process, without shared libraries and files",
                metrics.process_memory_limit.clone(),
            );
            registry.register(
                "rtmp_pending",
                "RTMP connections of encoders that are not authorized yet",
                metrics.rtmp_pending.clone(),
            );
            registry.register(
                "rtmp_refused",
                "RTMP connections closed before they were authorized: too many, too slow, malformed, or not allowed",
                metrics.rtmp_refused.clone(),
            );
            registry.register("joins_refused", "Refused joins by HTTP status", metrics.joins_refused.clone());
            registry.register("http_requests", "HTTP requests answered", metrics.http_requests.clone());
            registry.register("http_connections", "Open HTTP connections", metrics.http_connections.clone());
            registry.register(
                "http_connections_refused",
                "HTTP connections closed on accept because a connection limit was reached",
                metrics.http_connections_refused.clone(),
            );
        });
        metrics
    }
}

impl Metrics {
    /// Lets a module register its metrics; names get the prefix `commingle_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Registers a counter whose value `read` returns; it is called for each scrape.
    pub fn register_count(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let count = Count { name, help, read: Box::new(read) };
        self.register(|registry| registry.register_collector(Box::new(count)));
    }

    /// All metrics, in the format of [`CONTENT_TYPE`].
    pub fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))
            .expect("writing to a String does not fail");
        out
    }
}

/// A counter whose value is read on each scrape.
struct Count {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Count").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Count {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = ConstCounter::new((self.read)());
        counter.encode(encoder.encode_descriptor(self.name, self.help, None, counter.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_all_modules_are_in_one_text() {
        let metrics = Metrics::default();
        let drops: Counter = Counter::default();
        metrics.register(|registry| registry.register("udp_drops", "Datagrams dropped", drops.clone()));
        drops.inc_by(3);
        metrics.register_count("udp_sent", "Datagrams sent", || 7);
        metrics.event_streams.set(2);
        metrics
            .http_requests
            .get_or_create(&RequestLabels { method: "GET", route: "/healthz".into(), status: 200 })
            .inc();
        let text = metrics.text();
        for line in [
            "commingle_udp_drops_total 3",
            "commingle_udp_sent_total 7",
            "commingle_event_streams 2",
            "commingle_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing from\n{text}");
        }
    }
}
