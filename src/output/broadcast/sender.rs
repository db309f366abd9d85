//! The thread that has the connection: one attempt after the other, with rests between them.

use std::time::Duration;

use super::backoff::Backoff;
use super::progress::Progress;
use super::queue::Feed;
use super::{rtmp, rtp, srt, whip};
use crate::destination::{Destination, Guard, Target};
use crate::dial::DialError;
use crate::output::Desk;
use crate::plan::StreamSpec;
use crate::time::{self, Timestamp};

/// A far end that never took anything and refuses so often in a row is believed. One that did may only hold the
/// connection before for alive.
const REFUSALS_MAX: u32 = 3;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// All was sent, and goodbye said.
    Finished,
    /// It will not be otherwise: somebody must change something.
    Final(String),
    /// The far end does not want it.
    Refused(String),
    /// No connection, or not any more.
    Broken(String),
}

impl From<DialError> for Ended {
    fn from(error: DialError) -> Self {
        if error.is_final() { Self::Final(error.to_string()) } else { Self::Broken(error.to_string()) }
    }
}

/// What the thread begins with.
pub(super) struct Sender {
    pub(super) destination: Destination,
    pub(super) guard: Guard,
    pub(super) stream: StreamSpec,
    /// The room's epoch.
    pub(super) epoch: Timestamp,
    pub(super) feed: Feed,
    pub(super) desk: Desk,
}

impl Sender {
    /// Sends until nothing follows. Some words when it gave up before.
    pub(super) fn run(self) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.drive()),
            Err(error) => Some(format!("the system does not let it send: {error}")),
        }
    }

    async fn drive(self) -> Option<String> {
        let mut progress = Progress::new(self.desk.clone());
        let (mut backoff, mut refusals) = (Backoff::default(), 0);
        loop {
            let begun = time::now();
            let ended = self.attempt(&mut progress).await;
            self.feed.with(|queue| queue.set_open(false));
            let why = match ended {
                Ended::Finished => return None,
                Ended::Final(why) => return Some(why),
                Ended::Refused(why) => {
                    refusals += 1;
                    if refusals >= REFUSALS_MAX && !progress.was_live() {
                        return Some(why);
                    }
                    why
                }
                Ended::Broken(why) => {
                    refusals = 0;
                    why
                }
            };
            let lived = if progress.is_live() { time::now().since(begun) } else { Duration::ZERO };
            let rest = backoff.failed(lived, rand::random());
            progress.lost(&why, backoff.failures(), rest);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.feed.finished() => return None,
            }
        }
    }

    async fn attempt(&self, progress: &mut Progress) -> Ended {
        match self.destination.target() {
            Target::Rtmp(server) => rtmp::send(server, self, progress).await,
            Target::Srt(srt) => srt::send(srt, self, progress).await,
            Target::Whip(server) => whip::send(server, self, progress).await,
            Target::Rtp(endpoint) => rtp::send(endpoint, self, progress).await,
            other => Ended::Final(format!("{other} is not sent to")),
        }
    }
}
