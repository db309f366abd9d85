//! Range and conditional requests for a file (RFC 9110 sections 13 and 14). Pure.
//!
//! Owns: [`Validators`] of a file, and [`choose`]. Does not know: files. In: request headers; out: the part to send.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http_range_header::{RangeUnsatisfiableError, parse_range_header_with_max_ranges};

/// Ranges that are parsed; a request for more than one range gets the whole file.
const RANGES_MAX: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not zero");

/// The validators of a file: they change when the file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// A strong entity tag, in quotes.
    pub(super) etag: String,
    /// The time of the last change, to the second.
    pub(super) modified: SystemTime,
}

impl Validators {
    /// The validators of a file with this size in bytes and this time of its last change.
    pub(super) fn new(bytes: u64, modified: SystemTime) -> Self {
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            etag: format!("\"{:x}-{bytes:x}\"", since.as_nanos()),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        }
    }

    /// The value of the `Last-Modified` header.
    pub(super) fn last_modified(&self) -> String {
        httpdate::fmt_http_date(self.modified)
    }
}

/// The part of a file that answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// The whole file.
    Whole,
    /// These bytes.
    Range(RangeInclusive<u64>),
    /// Nothing: the client has the current state.
    NotModified,
    /// Nothing: the file does not have these bytes.
    Unsatisfiable,
}

/// The answer to a GET with these headers for a file of `bytes`. A growing file has no validators.
pub(super) fn choose(headers: &HeaderMap, bytes: u64, validators: Option<&Validators>) -> Part {
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if validators.is_some_and(|current| is_not_modified(header(IF_NONE_MATCH), header(IF_MODIFIED_SINCE), current)) {
        return Part::NotModified;
    }
    let Some(range) = header(RANGE) else { return Part::Whole };
    if header(IF_RANGE).is_some_and(|wanted| !validators.is_some_and(|current| if_range_matches(wanted, current))) {
        return Part::Whole;
    }
    // An invalid range is ignored (RFC 9110 section 14.2).
    let Ok(ranges) = parse_range_header_with_max_ranges(range.trim(), RANGES_MAX) else { return Part::Whole };
    match ranges.validate(bytes).as_deref() {
        Ok([range]) => Part::Range(range.clone()),
        Ok(_) => Part::Whole,
        Err(RangeUnsatisfiableError::Unsatisfiable) => Part::Unsatisfiable,
        Err(_) => Part::Whole,
    }
}

fn is_not_modified(none_match: Option<&str>, modified_since: Option<&str>, current: &Validators) -> bool {
    if let Some(tags) = none_match {
        return tags.split(',').any(|tag| [current.etag.as_str(), "*"].contains(&tag.trim().trim_start_matches("W/")));
    }
    modified_since.and_then(|date| httpdate::parse_http_date(date).ok()).is_some_and(|date| current.modified <= date)
}

/// Whether `If-Range` names the current state of the file, by entity tag or date.
fn if_range_matches(wanted: &str, current: &Validators) -> bool {
    wanted == current.etag || httpdate::parse_http_date(wanted).is_ok_and(|date| date == current.modified)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES: u64 = 1000;

    fn validators() -> Validators {
        Validators::new(BYTES, SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_700))
    }

    fn part(headers: &[(HeaderName, &str)]) -> Part {
        part_of(headers, BYTES)
    }

    fn part_of(headers: &[(HeaderName, &str)], bytes: u64) -> Part {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().expect("header text"))).collect();
        choose(&headers, bytes, Some(&validators()))
    }

    #[test]
    fn a_valid_range_is_selected() {
        for (range, expected) in [
            ("bytes=0-", Part::Range(0..=999)),
            ("bytes=0-0", Part::Range(0..=0)),
            ("bytes=500-5000", Part::Range(500..=999)),
            ("bytes=-100", Part::Range(900..=999)),
            ("bytes=-5000", Part::Range(0..=999)),
            ("Bytes=999-", Part::Range(999..=999)),
            ("bytes=1000-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-3", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("items=0-1", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=99999999999999999999-", Part::Unsatisfiable),
        ] {
            assert_eq!(part(&[(RANGE, range)]), expected, "{range}");
        }
        assert_eq!(part(&[]), Part::Whole);
        assert_eq!(part_of(&[(RANGE, "bytes=0-")], 0), Part::Unsatisfiable, "an empty file has no first byte");
    }

    #[test]
    fn a_range_of_an_earlier_state_gets_the_whole_file() {
        let now = validators();
        let range = (RANGE, "bytes=10-19");
        for (condition, expected) in [
            (now.etag.clone(), Part::Range(10..=19)),
            (now.last_modified(), Part::Range(10..=19)),
            (format!("W/{}", now.etag), Part::Whole),
            ("\"another\"".into(), Part::Whole),
            ("Wed, 21 Oct 2015 07:28:00 GMT".into(), Part::Whole),
            ("nonsense".into(), Part::Whole),
        ] {
            assert_eq!(part(&[range.clone(), (IF_RANGE, &condition)]), expected, "{condition}");
        }
        let headers = [(RANGE, "bytes=10-19".parse().expect("text")), (IF_RANGE, now.etag.parse().expect("text"))];
        assert_eq!(
            choose(&headers.into_iter().collect(), BYTES, None),
            Part::Whole,
            "a growing file has no validators"
        );
    }

    #[test]
    fn an_unchanged_file_is_not_sent_again() {
        let now = validators();
        let before = httpdate::fmt_http_date(now.modified - Duration::from_secs(1));
        for (name, value, expected) in [
            (IF_NONE_MATCH, now.etag.clone(), Part::NotModified),
            (IF_NONE_MATCH, format!("\"x\", W/{}", now.etag), Part::NotModified),
            (IF_NONE_MATCH, "*".into(), Part::NotModified),
            (IF_NONE_MATCH, "\"x\"".into(), Part::Whole),
            (IF_MODIFIED_SINCE, now.last_modified(), Part::NotModified),
            (IF_MODIFIED_SINCE, before, Part::Whole),
        ] {
            assert_eq!(part(&[(name, &value)]), expected, "{value}");
        }
        assert_eq!(part(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, &now.last_modified())]), Part::Whole);
    }

    proptest! {
        #[test]
        fn a_selected_range_is_inside_the_file(range in "bytes=[0-9,-]{0,40}", bytes in 0u64..5000) {
            let headers = [(RANGE, range.parse().expect("header text"))].into_iter().collect();
            if let Part::Range(range) = choose(&headers, bytes, None) {
                prop_assert!(range.start() <= range.end() && *range.end() < bytes);
            }
        }

        #[test]
        fn every_valid_range_is_honoured(start in 0u64..2000, length in 1u64..2000, bytes in 1u64..2000) {
            let last = start + length - 1;
            let range = format!("bytes={start}-{last}").parse().expect("header text");
            let headers = [(RANGE, range)].into_iter().collect();
            let expected =
                if start < bytes { Part::Range(start..=last.min(bytes - 1)) } else { Part::Unsatisfiable };
            prop_assert_eq!(choose(&headers, bytes, None), expected);
        }
    }
}
