//! Fuzz targets of HTTP requests: which client sent them, and which bytes of a file they want.
//!
//! Owns: how an input becomes headers. Does not know: the fuzzer.

use std::net::IpAddr;
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::origin::Origins;
use super::ranges::{Part, Validators, choose};
use crate::config::{Config, ForwardedHeader};

/// A request with the headers of the input, one per line. A proxy never gives its client its own, local address.
pub(crate) fn headers(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    let proxy: IpAddr = [127, 0, 0, 1].into();
    for forwarded_header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let mut config = Config::default();
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.http.forwarded_header = forwarded_header;
        config.http.origins = vec!["https://example.org".to_owned()];
        // An error is the answer to a request that is refused.
        let _ = Origins::new(&config).check(proxy, &Method::PATCH, &Uri::from_static("/v1/rooms/a"), &headers);
    }
    let validators = Validators::new(1_000, SystemTime::UNIX_EPOCH);
    for validators in [None, Some(&validators)] {
        if let Part::Range(range) = choose(&headers, 1_000, validators) {
            assert!(range.start() <= range.end() && *range.end() < 1_000, "{range:?} of 1,000 bytes");
        }
    }
}
