//! The benchmark: bots in several rooms of one server, and a page with the results.
//!
//! Owns: the rooms, the server if none is given ([`server`]), the cost of a packet to a viewer ([`cost`]) and its
//! minimum ([`floor`]), the page ([`page`], with plots by [`plot`]). Does not know: command lines. In: [`Settings`].
//! Out: [`Found`] with one [`Trial`] per room, and HTML.

mod cost;
pub mod floor;
pub mod page;
mod plot;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use self::cost::PacketCost;
use self::server::Server;
pub use self::server::ServerError;
use super::{BotPool, BotsError, Camera, Plan, Report};
use crate::id::RoomName;
use crate::media::Codec;
use crate::time;

/// Joins per second; the server that is started here allows more.
const JOINS_PER_SECOND: f64 = 50.0;

/// A room: its series, how many bots send, how many only receive.
pub type Room = (Series, usize, usize);

/// The default rooms.
pub const ROOMS: [Room; 7] = [
    (Series::Participants, 2, 0),
    (Series::Participants, 4, 0),
    (Series::Participants, 9, 0),
    (Series::Viewers, 2, 1),
    (Series::Viewers, 2, 10),
    (Series::Viewers, 2, 100),
    (Series::Viewers, 2, 1_000),
];

/// A series of rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// Increasing numbers of participants.
    Participants,
    /// Increasing numbers of viewers of two participants, all at the tier `low`.
    Viewers,
}

/// The settings of a benchmark.
#[derive(Debug, Clone)]
pub struct Settings {
    /// URL of the server; None starts one.
    pub url: Option<String>,
    /// The program that serves.
    pub program: PathBuf,
    /// The rooms.
    pub rooms: Vec<Room>,
    /// Length of the measurement in each room.
    pub watched: Duration,
    /// A bearer token for all rooms.
    pub token: Option<String>,
}

/// CPU of the server while all bots were in the room, in cores.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct ServerCpu {
    /// Connections and fan-out.
    pub edge: f64,
    /// Decoding, mixing, encoding.
    pub mixer: f64,
}

/// The result of one room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// Its series.
    pub series: Series,
    /// Bots that sent.
    pub participants: usize,
    /// Bots that only received.
    pub viewers: usize,
    /// The bots' report.
    pub report: Report,
    /// CPU of the server, if it was started here.
    pub cpu: Option<ServerCpu>,
}

/// The result of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// Every room.
    pub rooms: Vec<Trial>,
    /// Cost of a packet to a viewer, if there were viewers and the server was started here.
    pub packet: Option<PacketCost>,
    /// Cost of a packet to or from a participant, if there were rooms of participants and the server was started here.
    pub participant_packet: Option<PacketCost>,
}

/// Why a benchmark could not run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No bot could be started.
    #[error(transparent)]
    Bots(#[from] BotsError),
    /// The server could not be started.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The minimum cost of a packet could not be measured.
    #[error("no packets can be sent on loopback: {0}")]
    Floor(#[from] std::io::Error),
}

/// Measures all rooms, one after the other, and calls `progress` after each. Ends early when `leave` is cancelled.
///
/// # Errors
/// The server or the bots cannot be started.
pub async fn run(
    settings: Settings,
    leave: &CancellationToken,
    mut progress: impl FnMut(&Trial),
) -> Result<Found, BenchError> {
    let floor = floor::measure()?;
    let server = match settings.url {
        Some(_) => None,
        None => Some(Server::start(&settings.program).await?),
    };
    let url = match (&server, &settings.url) {
        (Some(server), _) => server.url(),
        (None, url) => url.clone().unwrap_or_default(),
    };
    let mut trials = Vec::new();
    for (series, participants, viewers) in settings.rooms {
        if leave.is_cancelled() {
            break;
        }
        let plan = Plan {
            url: url.clone(),
            room: room(participants, viewers),
            participants,
            publishers: 0,
            viewers,
            clock: true,
            talkers: 2,
            decode: 1,
            tier: if series == Series::Viewers { "low" } else { "auto" }.to_owned(),
            codec: Codec::Vp8,
            camera: Camera::default(),
            clip: None,
            speech: false,
            loss: 0.0,
            tcp: false,
            rate: JOINS_PER_SECOND,
            token: settings.token.clone(),
        };
        let bots = BotPool::start(plan, leave.child_token()).await?;
        let (began, before) = (time::now(), server.as_ref().map(Server::usage));
        bots.run_for(settings.watched).await;
        let (passed, after) = (time::now().since(began), server.as_ref().map(Server::usage));
        let cpu = before.zip(after).map(|(before, after)| after.since(&before, passed));
        let trial = Trial { series, participants, viewers, report: bots.stop().await, cpu };
        progress(&trial);
        trials.push(trial);
    }
    if let Some(server) = server {
        server.stop().await;
    }
    let floor = floor.as_secs_f64() * 1e6;
    let packet = PacketCost::of(&trials, Series::Viewers, floor);
    let participant_packet = PacketCost::of(&trials, Series::Participants, floor);
    Ok(Found { rooms: trials, packet, participant_packet })
}

/// A new room name for each trial.
fn room(participants: usize, viewers: usize) -> RoomName {
    let name = format!("bench-{participants}-{viewers}-{:08x}", rand::random::<u32>());
    name.parse().expect("letters, digits and dashes, fewer than 64")
}
