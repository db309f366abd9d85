//! HLS as it is served: the broadcasts of this node's rooms, and the requests of their players.
//!
//! Owns: [`HlsBroadcasts`], one broadcast a room, in memory. Does not know: what is in the pieces; playlists
//! ([`crate::hls`]). Pieces come in from the listener of an output's process; players that ask for what is not there yet
//! wait until the next piece.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::api::{App, RoomOf};
use super::problem::Problem;
use crate::hls::{Broadcast, Found, Piece, Query, Rendition};
use crate::id::RoomName;
use crate::link::output::{HlsPiece, HlsTarget};
use crate::media::StreamKey;
use crate::plan::StreamSpec;
use crate::time::{self, Timestamp};

/// How long a request waits for what is not there yet: three segments and a little.
const WAIT: Duration = Duration::from_secs(8);
/// How long the last segments of a broadcast that has ended can be had.
const AFTERWARDS: Duration = Duration::from_secs(60);
/// Players are told of the end so much after the last part: some fetch no parts any more once they know, and would never
/// see that one. A player that waits for a playlist gives up after three parts or so.
const END_AFTER: Duration = Duration::from_secs(1);
/// Room for headers of RTP and of fragments, and for what an encoder takes more than it is told, in percent.
const HEADROOM: u32 = 30;
/// Bits a second of the AAC that all renditions share, with its boxes.
const SOUND: u32 = 140_000;

/// The broadcasts of this node by HLS; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct HlsBroadcasts(Arc<Mutex<HashMap<RoomName, Arc<HlsBroadcast>>>>);

/// Whoever may still push pieces of a broadcast holds this; without any it ends.
#[derive(Debug)]
pub struct HlsFeed(Arc<HlsBroadcast>);

/// One room's broadcast.
#[derive(Debug)]
struct HlsBroadcast {
    held: Mutex<Held>,
    /// Counts pieces.
    changed: watch::Sender<u64>,
    /// What the room's epoch was on the wall clock, in microseconds since 1970.
    epoch_wall: u64,
}

#[derive(Debug)]
struct Held {
    broadcast: Broadcast,
    ended: Option<Timestamp>,
}

impl HlsBroadcasts {
    /// A room's broadcast begins; whatever was before it is forgotten.
    pub fn begin(&self, room: &RoomName, streams: &[StreamSpec], target: HlsTarget, epoch: Timestamp) -> Arc<HlsFeed> {
        let tag = format!("{:08x}", rand::random::<u32>());
        let mut renditions: Vec<Rendition> = streams.iter().map(rendition).collect();
        renditions.push(Rendition::Sound { bandwidth: SOUND });
        let broadcast = Arc::new(HlsBroadcast {
            held: Mutex::new(Held {
                broadcast: Broadcast::new(tag, renditions, target.segment, target.part),
                ended: None,
            }),
            changed: watch::Sender::new(0),
            epoch_wall: time::unix_micros().saturating_sub(time::now().since(epoch).as_micros() as u64),
        });
        let mut all = self.0.lock();
        let now = time::now();
        all.retain(|_, old| !old.is_stale(now));
        all.insert(room.clone(), broadcast.clone());
        Arc::new(HlsFeed(broadcast))
    }

    fn find(&self, room: &RoomName) -> Option<Arc<HlsBroadcast>> {
        let now = time::now();
        self.0.lock().get(room).filter(|broadcast| !broadcast.is_stale(now)).cloned()
    }
}

fn rendition(spec: &StreamSpec) -> Rendition {
    let StreamSpec { key: StreamKey { tier, .. }, size, fps, bitrate_kbps, .. } = spec;
    let bandwidth = bitrate_kbps * 1_000 / 100 * (100 + HEADROOM);
    Rendition::Video { tier: *tier, size: *size, fps: *fps, bandwidth }
}

impl HlsFeed {
    /// Another process goes on with it.
    pub fn begin_again(&self) {
        self.0.held.lock().broadcast.begin_again();
    }

    /// A piece of a rendition.
    pub fn push(&self, rendition: u8, piece: HlsPiece) {
        let piece = match piece {
            HlsPiece::Init { codec, data } => Piece::Init { codec, data },
            HlsPiece::Part { duration, independent, data } => Piece::Part { duration, independent, data },
            HlsPiece::Cut { at } => Piece::Cut { wall_micros: self.0.epoch_wall + at.as_micros() as u64 },
        };
        self.0.held.lock().broadcast.push(rendition.into(), piece);
        self.0.changed.send_modify(|pieces| *pieces += 1);
    }
}

impl Drop for HlsFeed {
    fn drop(&mut self) {
        let broadcast = self.0.clone();
        // Without a runtime the server is ending, and players with it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(END_AFTER).await;
                broadcast.end();
            });
        }
    }
}

impl HlsBroadcast {
    fn end(&self) {
        {
            let mut held = self.held.lock();
            held.broadcast.end();
            held.ended.get_or_insert_with(time::now);
        }
        self.changed.send_modify(|pieces| *pieces += 1);
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        self.held.lock().ended.is_some_and(|ended| now.since(ended) > AFTERWARDS)
    }

    /// Looks until it is there, or will never be.
    async fn wait(&self, look: impl Fn(&Broadcast) -> Found) -> Found {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                let found = look(&self.held.lock().broadcast);
                if found != Found::Later {
                    return found;
                }
                // The sender lives as long as this broadcast.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(WAIT, found).await.unwrap_or(Found::Later)
    }
}

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

fn answer(found: Found) -> Result<Response, Problem> {
    let response = |kind: &'static str, caching: &'static str, body: Body| {
        let headers =
            [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static(caching))];
        (headers, body).into_response()
    };
    match found {
        Found::Playlist(text) => Ok(response("application/vnd.apple.mpegurl", "no-cache", text.into())),
        Found::File(data) => Ok(response("video/mp4", "public, max-age=3600, immutable", data.into())),
        Found::Nothing => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "there is no such part of the broadcast (any more): read the playlist again",
        )),
        Found::TooFar => Err(Problem::bad_request("`_HLS_msn` is too far in the future: read the playlist again")),
        Found::Later => Err(Problem::overloaded("the broadcast has not got that far yet; try again")
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

    #[tokio::test(start_paused = true)]
    async fn whoever_is_early_waits_for_the_next_piece_and_not_for_ever() {
        let room: RoomName = "r".parse().expect("a name");
        let all = HlsBroadcasts::default();
        let target = HlsTarget { segment: Duration::from_secs(2), part: Duration::from_millis(500) };
        let feed = all.begin(&room, &[], target, time::now());
        let broadcast = all.find(&room).expect("it has just begun");
        let look = |broadcast: &Broadcast| broadcast.playlist("audio", Query::default(), "");
        assert_eq!(broadcast.wait(look).await, Found::Later, "after a while");
        let pieces = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            feed.push(0, HlsPiece::Init { codec: "mp4a.40.2".to_owned(), data: "init".into() });
            feed.push(0, HlsPiece::Cut { at: Duration::ZERO });
        };
        let (found, ()) = tokio::join!(broadcast.wait(look), pieces);
        assert!(matches!(found, Found::Playlist(_)));
        drop(feed);
        assert!(matches!(broadcast.wait(look).await, Found::Playlist(_)), "players are given a moment");
        tokio::time::sleep(2 * END_AFTER).await;
        assert!(matches!(broadcast.wait(look).await, Found::Nothing), "it ended without a part");
    }
}
