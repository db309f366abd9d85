//! One session at another WebRTC server, by WHIP.

use super::progress::{Progress, ticks};
use super::queue::{Body, Piece};
use super::sender::{Outcome, Sender};
use crate::client::call::{Call, Wish};
use crate::client::signalling::SignallingError;
use crate::destination::Web;
use crate::media::{AUDIO_RATE, VIDEO_CLOCK};
use crate::sdp::Direction;
use crate::time;

impl From<SignallingError> for Outcome {
    fn from(error: SignallingError) -> Self {
        match error {
            SignallingError::Dial(error) => error.into(),
            SignallingError::Refused(_) => Self::Refused(error.to_string()),
            SignallingError::Failed(_) => Self::Disconnected(error.to_string()),
        }
    }
}

/// Sends until it ends.
pub(super) async fn send(server: &Web, sender: &Sender, progress: &mut Progress) -> Outcome {
    let wish = Wish {
        server,
        token: sender.destination.token(),
        guard: &sender.guard,
        direction: Direction::SendOnly,
        codec: sender.stream.key.codec,
        keeps_media: false,
    };
    let begun = tokio::select! {
        begun = Call::begin(wish) => begun,
        () = sender.send_queue.finished() => return Outcome::Finished,
    };
    let mut call = match begun {
        Ok(call) => call,
        Err(error) => return error.into(),
    };
    let ended = run(&mut call, sender, progress).await;
    call.end().await;
    match ended {
        Ok(()) => Outcome::Finished,
        Err(why) => Outcome::Disconnected(why),
    }
}

async fn run(call: &mut Call, sender: &Sender, progress: &mut Progress) -> Result<(), String> {
    let send_queue = &sender.send_queue;
    // Media counts from here: what is older is of no use to somebody who has just connected.
    let begun = time::now();
    let mut open = false;
    loop {
        call.drive().await?;
        if call.is_open() && !open {
            open = true;
            send_queue.with(|queue| queue.set_open(true));
        }
        if call.connection.take_keyframe_wanted() {
            sender.notifier.request_keyframe(0);
        }
        tokio::select! {
            () = call.wait() => {}
            piece = send_queue.next(), if open => {
                let Some(piece) = piece else { return Ok(()) };
                let (at, size) = match &piece {
                    Piece::Video { time, .. } => (ticks(*time, VIDEO_CLOCK), piece.size()),
                    Piece::Audio { time, .. } => (ticks(*time, AUDIO_RATE), piece.size()),
                };
                let after = (sender.epoch + at).since(begun);
                match &piece {
                    Piece::Video { body: Body::Packets(packets), .. } => call.connection.send_frame(packets, after),
                    Piece::Audio { data, .. } => call.connection.send_sound(data.clone(), after, None),
                    Piece::Video { body: Body::AccessUnit(_), .. } => continue,
                }
                call.flush().await;
                progress.sent(&piece, size);
            }
            () = send_queue.finished(), if !open => return Ok(()),
        }
    }
}
