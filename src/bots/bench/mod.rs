//! A small plan of crowds against one server, and a page of what came out.
//!
//! Owns: which rooms of how many are tried, the server where there is none yet ([`server`]), what a packet to a viewer costs
//! ([`cost`]) and must cost ([`floor`]), the page ([`page`], drawn by [`plot`]). Does not know: command lines. In: [`Settings`].
//! Out: [`Found`], with one [`Trial`] a room, and text.

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

/// Joins a second; the server that is started here allows more.
const JOINS_PER_SECOND: f64 = 50.0;

/// A room that is tried: what it is one of, how many send, how many watch.
pub type Room = (Series, usize, usize);

/// Who is in the rooms that are usually tried.
pub const ROOMS: [Room; 7] = [
    (Series::Participants, 2, 0),
    (Series::Participants, 4, 0),
    (Series::Participants, 9, 0),
    (Series::Viewers, 2, 1),
    (Series::Viewers, 2, 10),
    (Series::Viewers, 2, 100),
    (Series::Viewers, 2, 1_000),
];

/// What a trial is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// More and more people who send.
    Participants,
    /// More and more people who watch two, all at the tier `low`.
    Viewers,
}

/// What is tried on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server; None starts one.
    pub url: Option<String>,
    /// The program to start it from.
    pub program: PathBuf,
    /// The rooms.
    pub rooms: Vec<Room>,
    /// How long each room is watched.
    pub watched: Duration,
    /// A bearer token good for all rooms.
    pub token: Option<String>,
}

/// CPU of the server while everyone was in the room, in parts of a core.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct ServerCpu {
    /// Connections and fan-out.
    pub edge: f64,
    /// Decoding, mixing, encoding.
    pub mixer: f64,
}

/// One room that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// What it is one of.
    pub series: Series,
    /// How many sent.
    pub participants: usize,
    /// How many watched.
    pub viewers: usize,
    /// What the bots met with.
    pub report: Report,
    /// What it cost the server, if that was started here.
    pub cpu: Option<ServerCpu>,
}

/// What a bench found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// Every room.
    pub rooms: Vec<Trial>,
    /// What a packet to a viewer costs, if there were viewers and the server was started here.
    pub packet: Option<PacketCost>,
}

/// Why a bench could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The bots could not begin.
    #[error(transparent)]
    Bots(#[from] BotsError),
    /// The server could not be started.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// What a packet costs at least could not be measured.
    #[error("no packets can be sent on loopback: {0}")]
    Floor(#[from] std::io::Error),
}

/// Tries all rooms, one after the other; `told` hears of each. Ends early when `leave` is cancelled.
///
/// # Errors
/// When a crowd or the server cannot even begin.
pub async fn run(
    settings: Settings,
    leave: &CancellationToken,
    mut told: impl FnMut(&Trial),
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
        told(&trial);
        trials.push(trial);
    }
    if let Some(server) = server {
        server.stop().await;
    }
    let packet = PacketCost::of(&trials, floor.as_secs_f64() * 1e6);
    Ok(Found { rooms: trials, packet })
}

/// A room of its own for each trial.
fn room(participants: usize, viewers: usize) -> RoomName {
    let name = format!("bench-{participants}-{viewers}-{:08x}", rand::random::<u32>());
    name.parse().expect("letters, digits and dashes, fewer than 64")
}
