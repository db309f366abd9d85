//! The sender thread: one connection attempt after the other, with delays between them.
//!
//! Owns: the retry policy. Does not know: protocols, each of which has a module. In: the [`SendQueue`]. Out:
//! connections.

use std::time::Duration;

use super::backoff::Backoff;
use super::progress::Progress;
use super::queue::SendQueue;
use super::{rtmp, rtp, srt, whip};
use crate::destination::{Destination, Guard, Target};
use crate::dial::DialError;
use crate::output::Notifier;
use crate::plan::StreamSpec;
use crate::time::{self, Timestamp};

/// After this many consecutive refusals a server that never accepted media is given up. One that did may refuse because
/// it still considers the previous connection alive.
const MAX_REFUSALS: u32 = 3;

/// A server that accepts the stream and closes the connection within this time has refused it: some servers check the
/// stream key only after they have accepted the stream (nginx-rtmp with `deny publish`).
pub(super) const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// The refusals of a server in a row.
#[derive(Debug, Default)]
struct Refusals {
    count: u32,
    /// The server has taken media for longer than [`REFUSED_WITHIN`].
    accepted: bool,
}

impl Refusals {
    /// Takes the end of an attempt: whether it was a refusal, and how long media was sent before. Returns whether the
    /// server is given up.
    fn ended(&mut self, is_refusal: bool, sent_for: Duration) -> bool {
        self.accepted |= sent_for > REFUSED_WITHIN;
        self.count = if is_refusal { self.count + 1 } else { 0 };
        self.count >= MAX_REFUSALS && !self.accepted
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All media was sent and the connection closed.
    Finished,
    /// A retry cannot succeed without a change of configuration.
    Permanent(String),
    /// The server refused the stream.
    Refused(String),
    /// The connection failed or was lost.
    Disconnected(String),
}

impl From<DialError> for Outcome {
    fn from(error: DialError) -> Self {
        if error.is_final() { Self::Permanent(error.to_string()) } else { Self::Disconnected(error.to_string()) }
    }
}

/// State of the sender thread.
pub(super) struct Sender {
    pub(super) destination: Destination,
    pub(super) guard: Guard,
    pub(super) stream: StreamSpec,
    /// The room's epoch.
    pub(super) epoch: Timestamp,
    pub(super) send_queue: SendQueue,
    pub(super) notifier: Notifier,
}

impl Sender {
    /// Sends until the media ends; returns a reason if it gave up.
    pub(super) fn run(self) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.drive()),
            Err(error) => Some(format!("cannot start the network runtime: {error}")),
        }
    }

    async fn drive(self) -> Option<String> {
        let mut progress = Progress::new(self.notifier.clone());
        let (mut backoff, mut refusals) = (Backoff::default(), Refusals::default());
        loop {
            let started = time::now();
            let ended = self.attempt(&mut progress).await;
            self.send_queue.with(|queue| queue.set_open(false));
            let (is_refusal, why) = match ended {
                Outcome::Finished => return None,
                Outcome::Permanent(why) => return Some(why),
                Outcome::Refused(why) => (true, why),
                Outcome::Disconnected(why) => (false, why),
            };
            let connected_for = if progress.is_live() { time::now().since(started) } else { Duration::ZERO };
            if refusals.ended(is_refusal, connected_for) {
                return Some(why);
            }
            let delay = backoff.failed(connected_for, rand::random());
            progress.lost(&why, backoff.failures(), delay);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.send_queue.finished() => return None,
            }
        }
    }

    async fn attempt(&self, progress: &mut Progress) -> Outcome {
        match self.destination.target() {
            Target::Rtmp(server) => rtmp::send(server, self, progress).await,
            Target::Srt(srt) => srt::send(srt, self, progress).await,
            Target::Whip(server) => whip::send(server, self, progress).await,
            Target::Rtp(endpoint) => rtp::send(endpoint, self, progress).await,
            other => Outcome::Permanent(format!("{other} is not a destination for broadcasts")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_three_times_is_given_up_unless_it_took_media_before() {
        let (at_once, soon, long) = (Duration::ZERO, Duration::from_millis(300), Duration::from_secs(60));
        let given_up = |attempts: &[(bool, Duration)]| {
            let mut refusals = Refusals::default();
            attempts.iter().map(|(is_refusal, sent_for)| refusals.ended(*is_refusal, *sent_for)).collect::<Vec<_>>()
        };
        assert_eq!(given_up(&[(true, at_once); 3]), [false, false, true]);
        // It accepts each time and closes the connection after some media.
        assert_eq!(given_up(&[(true, soon); 3]), [false, false, true]);
        let lost = [(true, at_once), (true, at_once), (false, at_once), (true, at_once), (true, at_once)];
        assert_eq!(given_up(&lost), [false; 5], "not in a row");
        let accepted = [(false, long), (true, at_once), (true, at_once), (true, at_once), (true, at_once)];
        assert_eq!(given_up(&accepted), [false; 5], "it may still consider the previous connection alive");
    }
}
