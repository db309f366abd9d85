//! The store of HLS broadcasts, in memory.
//!
//! Owns: [`HlsBroadcasts`], at most one broadcast for each room. Does not know: HTTP, the contents of segments,
//! playlists ([`crate::hls`]). Pieces come from the listener of an output's process; a request for a piece that does
//! not exist yet waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::hls::{Broadcast, Lookup, Piece, Rendition};
use crate::id::RoomName;
use crate::link::output::{HlsPiece, HlsTarget};
use crate::media::StreamKey;
use crate::plan::StreamSpec;
use crate::time::{self, Timestamp};

/// Longest time that a request waits for a piece: a little more than three segments.
const WAIT: Duration = Duration::from_secs(8);
/// How long the last segments remain available after a broadcast has ended.
const AFTERWARDS: Duration = Duration::from_secs(60);
/// Delay from the last part to the end of the playlist: some players fetch no more parts once they have seen the end,
/// and would miss the last one. A player that waits for a playlist gives up after about three parts.
const END_AFTER: Duration = Duration::from_secs(1);
/// Percentage added to the bitrate for headers and for encoders that exceed their target.
const HEADROOM: u32 = 30;
/// Bitrate of the AAC rendition in bits per second, with its boxes.
const SOUND: u32 = 140_000;

/// The HLS broadcasts of this node; clones share them.
#[derive(Debug, Clone, Default)]
pub struct HlsBroadcasts(Arc<Mutex<HashMap<RoomName, Arc<HlsBroadcast>>>>);

/// The writing side of a broadcast, which ends when the last one is dropped.
#[derive(Debug)]
pub struct HlsFeed(Arc<HlsBroadcast>);

/// The HLS broadcast of a room.
#[derive(Debug)]
pub struct HlsBroadcast {
    held: Mutex<Held>,
    /// Notified of each piece.
    changed: watch::Sender<u64>,
    /// Wall-clock time of the room's epoch, in microseconds since 1970.
    epoch_wall: u64,
    is_public: bool,
}

#[derive(Debug)]
struct Held {
    broadcast: Broadcast,
    ended: Option<Timestamp>,
}

impl HlsBroadcasts {
    /// Starts a room's broadcast, which replaces the previous one.
    pub fn begin(&self, room: &RoomName, streams: &[StreamSpec], target: HlsTarget, epoch: Timestamp) -> Arc<HlsFeed> {
        let mut renditions: Vec<Rendition> = streams.iter().map(rendition).collect();
        renditions.extend([Rendition::Audio { bandwidth: SOUND }, Rendition::Captions]);
        let broadcast = Arc::new(HlsBroadcast {
            held: Mutex::new(Held {
                broadcast: Broadcast::new(time::unix_seconds(), renditions, target.segment, target.part),
                ended: None,
            }),
            changed: watch::Sender::new(0),
            is_public: target.public,
            epoch_wall: time::unix_micros().saturating_sub(time::now().since(epoch).as_micros() as u64),
        });
        let mut all = self.0.lock();
        let now = time::now();
        all.retain(|_, old| !old.is_stale(now));
        all.insert(room.clone(), broadcast.clone());
        Arc::new(HlsFeed(broadcast))
    }

    /// The broadcast of this room, if it runs or has ended less than [`AFTERWARDS`] ago.
    pub fn find(&self, room: &RoomName) -> Option<Arc<HlsBroadcast>> {
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
    /// Another process continues the broadcast.
    pub fn begin_generation(&self) {
        self.0.held.lock().broadcast.begin_generation();
    }

    /// Adds a piece of a rendition.
    pub fn push(&self, rendition: u8, piece: HlsPiece) {
        let piece = match piece {
            HlsPiece::Init { codec, data } => Piece::Init { codec, data },
            HlsPiece::Part { duration, independent, data } => Piece::Part { duration, independent, data },
            HlsPiece::Language(language) => Piece::Language(language),
            HlsPiece::Cut { at } => Piece::Cut { wall_micros: self.0.epoch_wall + at.as_micros() as u64 },
        };
        self.0.held.lock().broadcast.push(rendition.into(), piece);
        self.0.changed.send_modify(|pieces| *pieces += 1);
    }
}

impl Drop for HlsFeed {
    fn drop(&mut self) {
        let broadcast = self.0.clone();
        // Without a runtime the server is shutting down.
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

    /// Whether it needs no token.
    pub fn is_public(&self) -> bool {
        self.is_public
    }

    /// Repeats a lookup until its result is available or can never be.
    pub async fn wait(&self, look: impl Fn(&Broadcast) -> Lookup) -> Lookup {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                let found = look(&self.held.lock().broadcast);
                if found != Lookup::Pending {
                    return found;
                }
                // The sender exists as long as this broadcast.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(WAIT, found).await.unwrap_or(Lookup::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hls::Query;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_the_next_piece_for_a_limited_time() {
        let room: RoomName = "r".parse().expect("a name");
        let all = HlsBroadcasts::default();
        let target = HlsTarget { segment: Duration::from_secs(2), part: Duration::from_millis(500), public: true };
        let feed = all.begin(&room, &[], target, time::now());
        let broadcast = all.find(&room).expect("it has just begun");
        assert!(broadcast.is_public());
        let look = |broadcast: &Broadcast| broadcast.playlist("audio", Query::default(), "");
        assert_eq!(broadcast.wait(look).await, Lookup::Pending, "after a while");
        let pieces = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            feed.push(0, HlsPiece::Init { codec: "mp4a.40.2".to_owned(), data: "init".into() });
            feed.push(0, HlsPiece::Cut { at: Duration::ZERO });
        };
        let (found, ()) = tokio::join!(broadcast.wait(look), pieces);
        assert!(matches!(found, Lookup::Playlist(_)));
        drop(feed);
        assert!(matches!(broadcast.wait(look).await, Lookup::Playlist(_)), "players are given a moment");
        tokio::time::sleep(2 * END_AFTER).await;
        assert!(matches!(broadcast.wait(look).await, Lookup::NotFound), "it ended without a part");
    }
}
