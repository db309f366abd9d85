//! What the callbacks of a connection tell its peer's task.
//!
//! Owns: [`Callbacks`], and the bounded queue of [`Note`]s behind them. Does not know: what is done about a note.
//! They run on the connection's driver, which must not wait for anybody.

use std::sync::Arc;

use rtc::peer_connection::state::RTCPeerConnectionState;
use tokio::sync::{Notify, mpsc};
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::PeerConnectionEventHandler;

/// Notes that may wait.
const NOTES: usize = 64;

/// What a callback tells.
pub(super) enum Note {
    State(RTCPeerConnectionState),
    Track(Arc<dyn TrackRemote>),
}

/// The callbacks.
pub(super) struct Callbacks {
    notes: mpsc::Sender<Note>,
    overflow: Arc<Notify>,
}

impl Callbacks {
    /// With the notes, and what is notified when there are too many.
    pub(super) fn new() -> (Self, mpsc::Receiver<Note>, Arc<Notify>) {
        let (notes, receiver) = mpsc::channel(NOTES);
        let overflow = Arc::new(Notify::new());
        (Self { notes, overflow: Arc::clone(&overflow) }, receiver, overflow)
    }

    fn note(&self, note: Note) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.notes.try_send(note) {
            self.overflow.notify_one();
        }
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Callbacks {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.note(Note::State(state));
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.note(Note::Track(track));
    }
}
