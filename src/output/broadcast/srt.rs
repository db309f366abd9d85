//! One SRT connection, as caller or listener.
//!
//! Owns: the connection's states. Does not know: SRT itself ([`crate::codec::srt`]), MPEG-TS ([`super::ts`]).

use std::time::Duration;

use tokio::time::sleep;

use super::progress::Progress;
use super::queue::{Body, Piece};
use super::sender::{Outcome, Sender};
use super::ts::Muxer;
use crate::codec::srt::SrtSender;
use crate::destination::{Srt, SrtMode};
use crate::dial;

/// Poll interval of the connection's state, which libsrt changes on other threads.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Number of polls at the end until all data is sent.
const DRAIN_POLLS: u32 = 10;

/// Sends until the media or the connection ends.
pub(super) async fn send(srt: &Srt, sender: &Sender, progress: &mut Progress) -> Outcome {
    match stream(srt, sender, progress).await {
        Ok(()) => Outcome::Finished,
        Err(ended) => ended,
    }
}

async fn stream(srt: &Srt, sender: &Sender, progress: &mut Progress) -> Result<(), Outcome> {
    let address = match &srt.mode {
        SrtMode::Listener(address) => *address,
        SrtMode::Caller(endpoint) => dial::resolve(endpoint, &sender.guard).await?,
    };
    let connection = SrtSender::new(srt, address).map_err(|error| Outcome::Disconnected(error.to_string()))?;
    let ended = send_media(srt, &connection, sender, progress).await;
    // libsrt must not be running when the process exits. Blocking is fine: nothing else runs on this thread.
    connection.end();
    ended
}

async fn send_media(
    srt: &Srt,
    connection: &SrtSender,
    sender: &Sender,
    progress: &mut Progress,
) -> Result<(), Outcome> {
    let send_queue = &sender.send_queue;
    let mut muxer = Muxer::default();
    send_queue.with(|queue| queue.set_open(true));
    if matches!(srt.mode, SrtMode::Listener(_)) {
        progress.waiting("no receiver is connected yet");
    }
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    loop {
        tokio::select! {
            _ = poll.tick() => {
                if let Some(why) = connection.failure() {
                    let reason = match (progress.is_live(), &srt.passphrase) {
                        (true, _) => "connection lost",
                        (false, None) => "no response from the SRT listener",
                        (false, Some(_)) => "no response from the SRT listener, or the passphrase differs",
                    };
                    return Err(Outcome::Disconnected(format!("{reason}: {why}")));
                }
            }
            // While the connection's buffer is full, media stays in the queue, which drops it when it is full.
            piece = send_queue.next(), if connection.has_room() => {
                let Some(piece) = piece else {
                    drain(srt, connection).await;
                    return Ok(());
                };
                let Some(due) = progress.due(&piece) else { continue };
                let packets = match &piece {
                    Piece::Video { keyframe, body: Body::AccessUnit(access_unit), .. } => {
                        muxer.video(access_unit, *keyframe, due)
                    }
                    Piece::Audio { data, .. } => muxer.audio(data, due),
                    Piece::Video { body: Body::Packets(_), .. } => continue,
                };
                let size = packets.len();
                connection.push(packets);
                if connection.is_connected() {
                    progress.sent(&piece, size);
                } else if progress.is_live() && matches!(srt.mode, SrtMode::Listener(_)) {
                    progress.waiting("the receiver has disconnected");
                }
            }
            // The buffer is full at the end: the rest is not sent.
            () = send_queue.finished(), if !connection.has_room() => return Ok(()),
        }
    }
}

/// Waits until the last data is sent, and for the latency, within which lost packets are retransmitted.
async fn drain(srt: &Srt, connection: &SrtSender) {
    for _ in 0..DRAIN_POLLS {
        if connection.is_empty() {
            break;
        }
        sleep(POLL_INTERVAL).await;
    }
    sleep(srt.latency).await;
}
