//! The HLS routes: playlists, parts and segments of a room's broadcast.
//!
//! Owns: what is read from a request and how a result is answered. Does not know: the broadcasts ([`crate::rooms::HlsBroadcasts`]).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{App, RoomOf};
use crate::hls::{Lookup, Query};
use crate::http::problem::Problem;
use crate::id::RoomName;
use crate::rooms::HlsBroadcast;

/// What of a request's query is passed on in playlists, and what it waits for.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(rename = "_HLS_msn")]
    segment: Option<u64>,
    #[serde(rename = "_HLS_part")]
    part: Option<u64>,
}

/// `GET /hls/{room}/index.m3u8`.
pub(super) async fn master(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let broadcast = find(&app, &room)?;
    let suffix = credentials(query.as_deref());
    answer(broadcast.wait(|broadcast| broadcast.master(&suffix)).await)
}

/// `GET /hls/{room}/{rendition}/{file}`: a playlist, a part or a segment.
pub(super) async fn file(
    State(app): State<App>,
    RoomOf(room): RoomOf,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let broadcast = find(&app, &room)?;
    let param = |name: &str| params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    let (rendition, file) = (param("rendition"), param("file"));
    if file != "index.m3u8" {
        return answer(broadcast.wait(|broadcast| broadcast.file(rendition, file)).await);
    }
    let asked: Asked = axum::extract::Query::try_from_uri(&uri(query.as_deref()))
        .map(|axum::extract::Query(asked)| asked)
        .map_err(|error| Problem::bad_request(format!("the query is wrong: {}", error.body_text())))?;
    if asked.part.is_some() && asked.segment.is_none() {
        return Err(Problem::bad_request("`_HLS_part` needs `_HLS_msn`"));
    }
    let query_of = Query { segment: asked.segment, part: asked.part };
    let suffix = credentials(query.as_deref());
    answer(broadcast.wait(|broadcast| broadcast.playlist(rendition, query_of, &suffix)).await)
}

fn find(app: &App, room: &RoomName) -> Result<Arc<HlsBroadcast>, Problem> {
    app.rooms().hls().find(room).ok_or_else(|| {
        let detail =
            format!("the room `{room}` is not broadcast by HLS: begin it with POST /v1/rooms/{room}/broadcasts");
        Problem::of_kind(StatusCode::NOT_FOUND, "no-output", detail)
    })
}

fn uri(query: Option<&str>) -> axum::http::Uri {
    format!("/?{}", query.unwrap_or_default()).parse().unwrap_or_default()
}

/// The part of a query that players must show again with each address of a playlist.
fn credentials(query: Option<&str>) -> String {
    let shown = query.unwrap_or_default().split('&');
    let shown: Vec<&str> = shown
        .filter(|pair| pair.starts_with("token=") || pair.starts_with("session="))
        .filter(|pair| plain(pair))
        .collect();
    if shown.is_empty() { String::new() } else { format!("?{}", shown.join("&")) }
}

/// Nothing that would end an attribute of a playlist.
fn plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

fn answer(found: Lookup) -> Result<Response, Problem> {
    let response = |kind: &'static str, caching: &'static str, body: Body| {
        let headers =
            [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static(caching))];
        (headers, body).into_response()
    };
    match found {
        Lookup::Playlist(text) => Ok(response("application/vnd.apple.mpegurl", "no-cache", text.into())),
        Lookup::File(data) => Ok(response("video/mp4", "public, max-age=3600, immutable", data.into())),
        Lookup::NotFound => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "there is no such part of the broadcast (any more): read the playlist again",
        )),
        Lookup::TooFar => Err(Problem::bad_request("`_HLS_msn` is too far in the future: read the playlist again")),
        Lookup::Pending => Err(Problem::overloaded("the broadcast has not got that far yet; try again")
            .retry_after(Duration::from_secs(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_credentials_are_passed_on() {
        assert_eq!(credentials(None), "");
        assert_eq!(credentials(Some("_HLS_msn=4&token=a.b-c&x=1")), "?token=a.b-c");
        assert_eq!(credentials(Some("token=a\"b")), "");
    }
}
