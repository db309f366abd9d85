//! The web page: the files of `assets/web`, embedded in the binary.
//!
//! Owns: their content types, caching and content security policy. Does not know: what they do. In: requests; out:
//! files.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::problem::Problem;

#[derive(RustEmbed)]
#[folder = "assets/web"]
struct Files;

/// Scripts come only from this server. Images may also come from data that the page generates. WebSockets are listed by
/// scheme, because older browsers do not include them in `'self'`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    media-src 'self' blob:; font-src 'self'; connect-src 'self' ws: wss:; manifest-src 'self'; worker-src 'self'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'self'";
/// The browser features that the page may request.
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), \
    screen-wake-lock=(self), speaker-selection=(self), geolocation=(), usb=(), payment=()";
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// `GET /`.
pub(super) async fn index(headers: HeaderMap) -> Response {
    file("index.html", &headers)
}

/// Every path that is not a route: a file, or 404.
pub(super) async fn asset(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    match method {
        Method::GET | Method::HEAD => file(uri.path().trim_start_matches('/'), &headers),
        _ => Problem::no_such_path().into_response(),
    }
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(path) else {
        return Problem::no_such_path().into_response();
    };
    let hash: String = metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{hash}\"");
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let unchanged = known == "*" || known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag);
    // For HEAD, hyper omits the body and keeps its length.
    let mut response =
        if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { data.into_owned().into_response() };
    let content_type = match metadata.mimetype() {
        text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        other => other.to_owned(),
    };
    let text = |text: String| HeaderValue::from_str(&text).expect("hashes and media types are header text");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, text(content_type));
    headers.insert(ETAG, text(etag));
    // File names have no version, so a browser revalidates each time; the answer is nearly always 304.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(PERMISSIONS_POLICY, HeaderValue::from_static(PERMISSIONS));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The URL of the page may contain a token.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
