//! HTTP requests, and offers to send in them.

use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Request};

pub(crate) const SDP: &str = "application/sdp";
pub(crate) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// The response to a request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    /// The value of a header; empty if it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Asserts a problem document (RFC 9457) with one of the statuses and a detail.
    pub(crate) fn assert_problem(&self, what: &str, statuses: &[u16]) {
        assert!(statuses.contains(&self.status), "{what}: expected one of {statuses:?}, got {self:?}");
        let kind = self.header("content-type");
        assert!(kind.starts_with("application/problem+json"), "{what}: content type `{kind}` in {self:?}");
        let problem = self.json();
        for field in ["type", "title", "detail"] {
            let text = problem[field].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{what}: the problem has no `{field}`: {problem}");
        }
        assert_eq!(problem["status"], self.status, "{what}: {problem}");
    }
}

/// Sends a request; error statuses are replies too.
pub(crate) fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(15)))
        .allow_non_standard_methods(true)
        .build();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let agent = ureq::Agent::new_with_config(config);
    let sent = if body.is_empty() && matches!(method, "GET" | "HEAD" | "OPTIONS" | "DELETE") {
        agent.run(request.body(()).expect("a valid request"))
    } else {
        agent.run(request.body(body).expect("a valid request"))
    };
    let mut response = sent.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let body = response.body_mut().read_to_string().unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    Reply { status: response.status().as_u16(), headers: response.headers().clone(), body }
}

pub(crate) fn get(url: &str) -> Reply {
    request("GET", url, &[], "")
}

/// A counter of a server's metrics, by its name without `commingle_`.
pub(crate) fn counted(url: &str, name: &str) -> u64 {
    let text = get(&format!("{url}/metrics")).body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("commingle_{name} ")));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

pub(crate) fn post_offer(url: &str, offer: &str) -> Reply {
    request("POST", url, &[("content-type", SDP)], offer)
}

/// An offer like a browser's, which tests change.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) direction: &'static str,
    pub(crate) videos: usize,
    pub(crate) audio_codec: &'static str,
    pub(crate) video_codec: &'static str,
    pub(crate) ice: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self { direction: "sendrecv", videos: 1, audio_codec: "opus/48000/2", video_codec: "VP8/90000", ice: true }
    }
}

impl Offer {
    pub(crate) fn sdp(&self) -> String {
        let fingerprint = (0..32).map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
        let mids = (0..=self.videos).map(|mid| mid.to_string()).collect::<Vec<_>>().join(" ");
        let mut lines = vec![
            "v=0".to_owned(),
            "o=- 4611731400430051336 2 IN IP4 127.0.0.1".to_owned(),
            "s=-".to_owned(),
            "t=0 0".to_owned(),
            format!("a=group:BUNDLE {mids}"),
            "a=msid-semantic: WMS".to_owned(),
        ];
        let mut media = |kind: &str, mid: usize, payload: u8, codec: &str| {
            lines.push(format!("m={kind} 9 UDP/TLS/RTP/SAVPF {payload}"));
            lines.push("c=IN IP4 0.0.0.0".to_owned());
            lines.push("a=rtcp:9 IN IP4 0.0.0.0".to_owned());
            if self.ice {
                lines.push("a=ice-ufrag:Rst4".to_owned());
                lines.push("a=ice-pwd:aaaabbbbccccddddeeeeffff".to_owned());
                lines.push("a=ice-options:trickle".to_owned());
            }
            lines.push(format!("a=fingerprint:sha-256 {fingerprint}"));
            lines.push("a=setup:actpass".to_owned());
            lines.push(format!("a=mid:{mid}"));
            lines.push(format!("a={}", self.direction));
            lines.push(format!("a=msid:stream {kind}{mid}"));
            lines.push("a=rtcp-mux".to_owned());
            lines.push("a=rtcp-rsize".to_owned());
            lines.push(format!("a=rtpmap:{payload} {codec}"));
            if self.direction != "recvonly" {
                lines.push(format!("a=ssrc:{} cname:tester", 1000 + mid));
            }
        };
        media("audio", 0, 111, self.audio_codec);
        for mid in 1..=self.videos {
            media("video", mid, 96, self.video_codec);
        }
        lines.iter().fold(String::new(), |text, line| text + line + "\r\n")
    }
}
