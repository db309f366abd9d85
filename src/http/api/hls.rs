//! The HLS routes: playlists, parts and segments of a room's broadcast.
//!
//! Owns: the queries and headers of these routes. Does not know: the broadcasts ([`crate::rooms::HlsBroadcasts`]). In:
//! requests; out: playlists and media.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::App;
use super::extract::{InPath, query};
use crate::hls::{Lookup, Query};
use crate::http::problem::Problem;
use crate::id::RoomName;
use crate::rooms::HlsBroadcast;

/// The media type of playlists (RFC 8216 section 4).
const PLAYLIST: &str = "application/vnd.apple.mpegurl";

/// The query of a playlist: the segment and part that a blocking reload waits for.
#[derive(Debug, Default, Deserialize)]
struct PlaylistQuery {
    #[serde(rename = "_HLS_msn")]
    segment: Option<u64>,
    #[serde(rename = "_HLS_part")]
    part: Option<u64>,
}

/// `GET /hls/{room}/index.m3u8`.
pub(super) async fn master(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    uri: Uri,
) -> Result<Response, Problem> {
    let broadcast = find(&app, &room)?;
    let suffix = credentials(uri.query());
    answer(broadcast.wait(|broadcast| broadcast.master(&suffix)).await, PLAYLIST)
}

/// `GET /hls/{room}/{rendition}/{file}`: a playlist, a part or a segment.
pub(super) async fn file(
    State(app): State<App>,
    InPath(room): InPath<RoomName>,
    params: RawPathParams,
    uri: Uri,
) -> Result<Response, Problem> {
    let broadcast = find(&app, &room)?;
    let param = |name: &str| params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    let (rendition, file) = (param("rendition"), param("file"));
    if file != "index.m3u8" {
        let kind = if file.ends_with(".vtt") { "text/vtt; charset=utf-8" } else { "video/mp4" };
        return answer(broadcast.wait(|broadcast| broadcast.file(rendition, file)).await, kind);
    }
    let PlaylistQuery { segment, part } = query(&uri)?;
    if part.is_some() && segment.is_none() {
        return Err(Problem::bad_request("`_HLS_part` requires `_HLS_msn`"));
    }
    let reload = Query { segment, part };
    let suffix = credentials(uri.query());
    answer(broadcast.wait(|broadcast| broadcast.playlist(rendition, reload, &suffix)).await, PLAYLIST)
}

fn find(app: &App, room: &RoomName) -> Result<Arc<HlsBroadcast>, Problem> {
    app.rooms().hls().find(room).ok_or_else(|| {
        let path = format!("/v1/rooms/{}/broadcasts", room.in_url());
        let detail = format!("the room `{room}` has no HLS broadcast: start one with POST {path}");
        Problem::of_kind(StatusCode::NOT_FOUND, "no-output", detail)
    })
}

/// The credentials in a query, as a suffix for the URLs in playlists.
fn credentials(query: Option<&str>) -> String {
    let pairs: Vec<&str> = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| pair.starts_with("token=") || pair.starts_with("session="))
        .filter(|pair| is_safe_in_playlist(pair))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Whether the text cannot end an attribute or a line of a playlist.
fn is_safe_in_playlist(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

/// The answer to a lookup, whose result has this media type.
fn answer(found: Lookup, kind: &'static str) -> Result<Response, Problem> {
    let response = |caching: &'static str, body: Body| {
        let headers =
            [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static(caching))];
        (headers, body).into_response()
    };
    match found {
        Lookup::Playlist(text) => Ok(response("no-cache", text.into())),
        Lookup::File(data) => Ok(response("public, max-age=3600, immutable", data.into())),
        Lookup::NotFound => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "the broadcast does not have this segment or part: load the playlist again",
        )),
        Lookup::TooFar => Err(Problem::bad_request("`_HLS_msn` is too far in the future: load the playlist again")),
        Lookup::Pending => Err(Problem::overloaded("the segment is not available yet; try again after Retry-After")
            .retry_after(Duration::from_secs(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playlists_repeat_only_the_credentials_of_a_query() {
        assert_eq!(credentials(None), "");
        assert_eq!(credentials(Some("_HLS_msn=4&token=a.b-c&x=1")), "?token=a.b-c");
        assert_eq!(credentials(Some("token=a\"b")), "");
    }
}
