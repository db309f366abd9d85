//! One connection by SRT, or one port that others connect to.

use std::time::Duration;

use super::progress::Progress;
use super::queue::{Body, Piece};
use super::sender::{Ended, Sender};
use super::ts::Muxer;
use crate::codec::srt::SrtSender;
use crate::destination::{Srt, SrtMode};
use crate::dial;

/// How often it is looked whether the connection stands. Its errors come on other threads.
const LOOK: Duration = Duration::from_millis(100);

/// Sends until it ends.
pub(super) async fn send(srt: &Srt, sender: &Sender, progress: &mut Progress) -> Ended {
    match stream(srt, sender, progress).await {
        Ok(()) => Ended::Finished,
        Err(ended) => ended,
    }
}

async fn stream(srt: &Srt, sender: &Sender, progress: &mut Progress) -> Result<(), Ended> {
    let feed = &sender.feed;
    let address = match &srt.mode {
        SrtMode::Listener(address) => *address,
        SrtMode::Caller(endpoint) => dial::resolve(endpoint, &sender.guard).await?,
    };
    let connection = SrtSender::new(srt, address).map_err(|error| Ended::Broken(error.to_string()))?;
    let mut muxer = Muxer::default();
    feed.with(|queue| queue.set_open(true));
    if matches!(srt.mode, SrtMode::Listener(_)) {
        progress.waits("nobody is connected yet");
    }
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => {
                if let Some(why) = connection.failure() {
                    let far = match (progress.is_live(), &srt.passphrase) {
                        (true, _) => "the connection broke",
                        (false, None) => "nobody answers there",
                        (false, Some(_)) => "nobody answers there, or with another passphrase",
                    };
                    return Err(Ended::Broken(format!("{far}: {why}")));
                }
            }
            // What does not fit waits in the feed, which drops what is too old.
            piece = feed.next(), if connection.has_room() => {
                let Some(piece) = piece else { return Ok(()) };
                let Some(due) = progress.due(&piece) else { continue };
                let packets = match &piece {
                    Piece::Video { keyframe, body: Body::Whole(access_unit), .. } => {
                        muxer.video(access_unit, *keyframe, due)
                    }
                    Piece::Sound { data, .. } => muxer.sound(data, due),
                    Piece::Video { body: Body::Packets(_), .. } => continue,
                };
                let size = packets.len();
                connection.push(packets);
                if connection.is_connected() {
                    progress.sent(&piece, size);
                } else if progress.is_live() && matches!(srt.mode, SrtMode::Listener(_)) {
                    progress.waits("nobody is connected any more");
                }
            }
            () = feed.finished() => return Ok(()),
        }
    }
}
