//! A broadcast to another WebRTC server by WHIP: one session.

use super::progress::{Progress, ticks};
use super::queue::{Body, Piece};
use super::sender::{Outcome, Sender};
use crate::client::connection::Collect;
use crate::client::session::{Session, SessionConfig};
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

/// Opens a session and sends until it ends.
pub(super) async fn send(server: &Web, sender: &Sender, progress: &mut Progress) -> Outcome {
    let config = SessionConfig {
        server,
        token: sender.destination.token(),
        guard: &sender.guard,
        direction: Direction::SendOnly,
        codec: sender.stream.key.codec,
        collect: Collect::default(),
    };
    let opened = tokio::select! {
        opened = Session::open(config) => opened,
        () = sender.send_queue.finished() => return Outcome::Finished,
    };
    let mut session = match opened {
        Ok(session) => session,
        Err(error) => return error.into(),
    };
    let ended = run(&mut session, sender, progress).await;
    session.close().await;
    match ended {
        Ok(()) => Outcome::Finished,
        Err(why) => Outcome::Disconnected(why),
    }
}

async fn run(session: &mut Session, sender: &Sender, progress: &mut Progress) -> Result<(), String> {
    let send_queue = &sender.send_queue;
    // Media from before the session is not sent.
    let begun = time::now();
    let mut connected = false;
    loop {
        session.drive().await?;
        if session.is_connected() && !connected {
            connected = true;
            send_queue.with(|queue| queue.set_open(true));
        }
        if session.connection.take_keyframe_request() {
            sender.notifier.request_keyframe(0);
        }
        tokio::select! {
            () = session.wait() => {}
            piece = send_queue.next(), if connected => {
                let Some(piece) = piece else { return Ok(()) };
                let (at, size) = match &piece {
                    Piece::Video { time, .. } => (ticks(*time, VIDEO_CLOCK), piece.size()),
                    Piece::Audio { time, .. } => (ticks(*time, AUDIO_RATE), piece.size()),
                };
                let after = (sender.epoch + at).since(begun);
                match &piece {
                    Piece::Video { body: Body::Packets(packets), .. } => session.connection.send_video(packets, after),
                    Piece::Audio { data, .. } => session.connection.send_audio(data.clone(), after, None, false),
                    Piece::Video { body: Body::AccessUnit(_), .. } => continue,
                }
                session.flush().await;
                progress.sent(&piece, size);
            }
            () = send_queue.finished(), if !connected => return Ok(()),
        }
    }
}
