//! The web page: the files of `assets/web`, embedded in the binary.
//!
//! Owns: their content types, caching and content security policy, and `/NAME`, the page of a room. Does not know: what
//! the files do, and who may frame them. In: requests; out: files.

use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::problem::Problem;
use crate::id::RoomName;

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

/// A page of the server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    /// The lobby and the call.
    Call,
    /// The player of the HLS broadcast of a room.
    Live,
    /// The API explorer.
    Explorer,
}

/// The pages and files, with their headers.
#[derive(Debug)]
pub(super) struct Web {
    policy: HeaderValue,
}

impl Web {
    /// Pages of the `frame_ancestors` may show the pages in a frame.
    pub(super) fn new(frame_ancestors: &[String]) -> Self {
        let ancestors: String = frame_ancestors.iter().map(|origin| format!(" {origin}")).collect();
        let policy = HeaderValue::from_str(&format!("{POLICY}{ancestors}"));
        Self { policy: policy.expect("the check of the configuration accepts only header text") }
    }

    /// A page.
    pub(super) fn page(&self, page: Page, headers: &HeaderMap) -> Response {
        let path = match page {
            Page::Call => "index.html",
            Page::Live => "live.html",
            Page::Explorer => "docs.html",
        };
        self.file(path, headers)
    }

    /// Every path that is not a route: a file, the page of a room (`/NAME`), or 404. Names for which `is_reserved` is
    /// true belong to the API; `/?room=NAME` opens the pages of such rooms.
    pub(super) fn asset(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        is_reserved: fn(&str) -> bool,
    ) -> Response {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Problem::no_such_path().into_response();
        }
        let path = uri.path().trim_start_matches('/');
        if Files::get(path).is_some() {
            return self.file(path, headers);
        }
        match segment(uri.path()).filter(|segment| !is_reserved(segment)) {
            Some(segment) => self.room(segment, uri, headers),
            None => Problem::no_such_path().into_response(),
        }
    }

    /// The page of the room whose percent-encoded name is `segment`.
    fn room(&self, segment: &str, uri: &Uri, headers: &HeaderMap) -> Response {
        match RoomName::from_url(segment) {
            // The URLs in the page are relative to the root.
            Ok(name) if uri.path().ends_with('/') => {
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                Redirect::temporary(&format!("/{}{query}", name.in_url())).into_response()
            }
            Ok(_) => self.page(Page::Call, headers),
            // The page says in plain words what is wrong with the name.
            Err(_) if accepts_html(headers) => {
                let mut page = self.page(Page::Call, headers);
                *page.status_mut() = StatusCode::BAD_REQUEST;
                page
            }
            Err(_) if segment.contains('.') => Problem::no_such_path().into_response(),
            Err(error) => Problem::bad_room_name(StatusCode::BAD_REQUEST, &error).into_response(),
        }
    }

    fn file(&self, path: &str, headers: &HeaderMap) -> Response {
        Files::get(path)
            .map_or_else(|| Problem::no_such_path().into_response(), |found| self.response(path, found, headers))
    }

    fn response(&self, path: &str, EmbeddedFile { data, metadata }: EmbeddedFile, headers: &HeaderMap) -> Response {
        let hash: String = metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let etag = format!("\"{hash}\"");
        let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let unchanged = known == "*" || known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag);
        // For HEAD, hyper omits the body and keeps its length.
        let mut response =
            if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { data.into_owned().into_response() };
        let content_type = match metadata.mimetype() {
            // The registered type of this extension is a video.
            _ if path.ends_with(".d.ts") => "text/plain; charset=utf-8".to_owned(),
            text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
            other => other.to_owned(),
        };
        let text = |text: String| HeaderValue::from_str(&text).expect("hashes and media types are header text");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, text(content_type));
        headers.insert(ETAG, text(etag));
        // File names have no version, so a browser revalidates each time; the answer is nearly always 304.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(PERMISSIONS_POLICY, HeaderValue::from_static(PERMISSIONS));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // The URL of the page may contain a token.
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}

/// The only segment of a path, without the slashes after it.
fn segment(path: &str) -> Option<&str> {
    let segment = path.strip_prefix('/')?.trim_end_matches('/');
    (!segment.is_empty() && !segment.contains('/')).then_some(segment)
}

/// Whether a browser navigates to the URL, rather than a program or an element of a page.
fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}
