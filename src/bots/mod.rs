//! Bots: WebRTC clients that load a server and measure what they receive.
//!
//! Owns: the bots of one room, each with ICE, DTLS and SRTP of its own, the media they send and the statistics of what
//! they receive. Does not know: the server's internals. It uses the server only by HTTP, UDP and TCP, so the server may
//! run on another machine. In: a [`Plan`]. Out: a [`Report`].
//!
//! A thousand viewers must fit in one core beside the server's. So a bot is no peer connection of the crate `rtc`,
//! which costs over 10 µs per packet, but a [`Connection`](crate::client::connection::Connection): one task and one
//! socket; a packet is decrypted, counted and dropped. Only bots that decode keep frames.

mod api;
mod audio;
mod barcode;
pub mod bench;
mod bot;
mod clock_reader;
mod report;
mod socket;
mod speech;
mod video;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use self::api::Api;
pub use self::api::ApiError;
use self::audio::Audio;
use self::clock_reader::ClockTile;
pub use self::report::{BotReport, Load, Report};
use self::video::VideoLoop;
pub use self::video::{Camera, ClipError, Scene};
use crate::client;
use crate::codec::CodecError;
use crate::id::RoomName;
use crate::media::Codec;
use crate::time;
use crate::transport::secure::Identity;

/// Most HTTP requests at a time: many bots leave at once.
const REQUESTS: usize = 16;

/// Most host candidates of an offer.
const ADDRESSES_MAX: usize = 8;

/// Why no bot can be started.
#[derive(Debug, thiserror::Error)]
pub enum BotsError {
    /// The server cannot be used.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The synthetic media cannot be encoded.
    #[error("the bots' media cannot be encoded: {0}")]
    Media(#[from] CodecError),
    /// The clip cannot be sent.
    #[error("--clip {0}")]
    Clip(#[from] ClipError),
    /// The certificate cannot be generated.
    #[error("the bots' certificate cannot be generated: {0}")]
    Identity(String),
}

/// Which bots join which room, and what they send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server's URL.
    pub url: String,
    /// The room; it is created if necessary.
    pub room: RoomName,
    /// Bots that send and receive.
    pub participants: usize,
    /// Bots that only send.
    pub publishers: usize,
    /// Bots that only receive.
    pub viewers: usize,
    /// The first sender sends a live picture of a clock.
    pub clock: bool,
    /// How many of the senders talk.
    pub talkers: usize,
    /// How many of the receivers decode and read the clock.
    pub decode: usize,
    /// The requested tier.
    pub tier: String,
    /// Video codec that is received, and sent unless a clip has another one.
    pub codec: Codec,
    /// Pictures of the synthetic video and the clock.
    pub camera: Camera,
    /// IVF file that all senders but the clock send in a loop, instead of the synthetic video.
    pub clip: Option<PathBuf>,
    /// Talkers speak in turns with pauses and DTX, instead of a continuous tone.
    pub speech: bool,
    /// Part of the received datagrams that is dropped, 0 to 1, once a bot has joined.
    pub loss: f64,
    /// Media over TCP (RFC 6544) instead of UDP.
    pub tcp: bool,
    /// Joins per second.
    pub rate: f64,
    /// A bearer token.
    pub token: Option<String>,
}

/// The role of a bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sends and receives.
    Participant,
    /// Only sends.
    Publisher,
    /// Only receives.
    Viewer,
}

/// What one bot does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BotSpec {
    name: String,
    role: Role,
    shows_clock: bool,
    /// Its index among the talkers.
    talker: Option<usize>,
    decodes: bool,
}

impl Plan {
    /// All bots in the order of joining: senders first, so that viewers have something to receive.
    fn bots(&self) -> Vec<BotSpec> {
        let roles = [
            (Role::Participant, "Bot", self.participants),
            (Role::Publisher, "Source", self.publishers),
            (Role::Viewer, "Viewer", self.viewers),
        ];
        let mut bots: Vec<BotSpec> = roles
            .into_iter()
            .flat_map(|(role, name, count)| (1..=count).map(move |number| (role, format!("{name}-{number}"))))
            .map(|(role, name)| BotSpec { name, role, shows_clock: false, talker: None, decodes: false })
            .collect();
        for (i, bot) in bots.iter_mut().filter(|bot| bot.role != Role::Viewer).enumerate() {
            bot.shows_clock = self.clock && i == 0;
            bot.talker = (i < self.talkers).then_some(i);
        }
        // The sender of the clock decodes last: the delay to the other bots is of more interest.
        let (others, clock): (Vec<_>, Vec<_>) =
            bots.iter_mut().filter(|bot| bot.role != Role::Publisher).partition(|bot| !bot.shows_clock);
        for bot in others.into_iter().chain(clock).take(self.decode) {
            bot.decodes = true;
        }
        bots
    }
}

/// The media that senders send, encoded once.
struct Media {
    /// None with the camera off.
    video: Option<Arc<VideoLoop>>,
    audio: Arc<Audio>,
}

impl Media {
    /// Encodes or reads what the plan wants. Blocks.
    fn new(plan: &Plan) -> Result<Self, BotsError> {
        let video = match &plan.clip {
            Some(file) => Some(VideoLoop::clip(file)?),
            None if plan.camera.scene == Scene::Off => None,
            None => Some(VideoLoop::synthetic(plan.codec, plan.camera)?),
        };
        let talkers = plan.talkers.min(plan.participants + plan.publishers);
        let audio = if plan.speech { Audio::speech(talkers) } else { Audio::tone() };
        Ok(Self { video: video.map(Arc::new), audio: Arc::new(audio) })
    }
}

/// What all bots share.
struct Shared {
    plan: Plan,
    api: Api,
    own_addresses: Vec<IpAddr>,
    identity: Identity,
    /// None where no bot sends.
    media: Option<Media>,
    /// Zero of the conversation.
    epoch: time::Timestamp,
    /// The participant that shows the clock, once it has joined.
    clock: Mutex<Option<String>>,
    clock_tile: ClockTile,
    requests: Semaphore,
    /// One permit for each bot that has joined or failed.
    settled: Semaphore,
    /// One permit for each bot that has ended.
    ended: Semaphore,
    /// All bots have joined or failed.
    complete: AtomicBool,
    /// Datagrams received by all bots.
    received: AtomicU64,
    cancel: CancellationToken,
}

/// The running bots of one room.
pub struct BotPool {
    shared: Arc<Shared>,
    bots: JoinSet<BotReport>,
    planned: usize,
    began: LoadMark,
}

/// Begin or end of a load measurement.
#[derive(Debug, Clone, Copy)]
struct LoadMark {
    at: time::Timestamp,
    cpu: Duration,
    received: u64,
}

impl BotPool {
    /// Starts all bots of a plan, one after the other, and waits until each has joined or failed. `cancel` stops them
    /// at any time.
    ///
    /// # Errors
    /// No bot can be started. The failure of one bot is in the report.
    pub async fn start(plan: Plan, cancel: CancellationToken) -> Result<Self, BotsError> {
        allow_sockets();
        let api = Api::new(&plan.url, plan.token.clone())?;
        let own_addresses = own_addresses(api.own_address()?);
        let identity = client::identity().map_err(BotsError::Identity)?;
        let media = if plan.participants + plan.publishers > 0 {
            let plan = plan.clone();
            let media = tokio::task::spawn_blocking(move || Media::new(&plan)).await;
            Some(media.map_err(|_| CodecError::Failed)??)
        } else {
            None
        };
        let specs = plan.bots();
        let planned = specs.len();
        let shared = Arc::new(Shared {
            own_addresses,
            identity,
            media,
            epoch: time::now(),
            api,
            clock: Mutex::default(),
            clock_tile: ClockTile::default(),
            requests: Semaphore::new(REQUESTS),
            settled: Semaphore::new(0),
            ended: Semaphore::new(0),
            complete: AtomicBool::new(false),
            received: AtomicU64::new(0),
            cancel: cancel.clone(),
            plan,
        });
        let mut bots = JoinSet::new();
        let mut joins = interval(Duration::from_secs_f64(1.0 / shared.plan.rate.clamp(0.1, 1_000.0)));
        joins.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for spec in specs {
            tokio::select! {
                _ = joins.tick() => {}
                () = cancel.cancelled() => break,
            }
            bots.spawn(bot::run(spec, Arc::clone(&shared)));
        }
        tokio::select! {
            _ = shared.settled.acquire_many(bots.len() as u32) => {}
            () = cancel.cancelled() => {}
        }
        shared.complete.store(true, Ordering::Relaxed);
        let began = LoadMark::of(&shared);
        Ok(Self { shared, bots, planned, began })
    }

    /// Waits for a while; ends early when the bots are cancelled, or all have failed.
    pub async fn run_for(&self, duration: Duration) {
        tokio::select! {
            () = sleep(duration) => {}
            _ = self.shared.ended.acquire_many(self.bots.len() as u32) => {}
            () = self.shared.cancel.cancelled() => {}
        }
    }

    /// Ends all sessions and sums up.
    pub async fn stop(mut self) -> Report {
        let (from, to) = (self.began, LoadMark::of(&self.shared));
        self.shared.cancel.cancel();
        let mut bots = Vec::with_capacity(self.planned);
        while let Some(ended) = self.bots.join_next().await {
            match ended {
                Ok(report) => bots.push(report),
                Err(error) => tracing::error!(%error, "a bot panicked"),
            }
        }
        let load = Load {
            seconds: to.at.since(from.at).as_secs_f64(),
            cpu_seconds: to.cpu.saturating_sub(from.cpu).as_secs_f64(),
            packets: to.received - from.received,
        };
        Report::new(&self.shared.plan, self.planned, bots, load)
    }
}

impl LoadMark {
    fn of(shared: &Shared) -> Self {
        Self { at: time::now(), cpu: time::process_cpu(), received: shared.received.load(Ordering::Relaxed) }
    }
}

/// Our host candidates, as a browser has them: the address on the route to the HTTP server first, then all others of
/// the same family, one of which may be on the route to the media port.
fn own_addresses(first: IpAddr) -> Vec<IpAddr> {
    let interfaces = rtc::shared::ifaces::ifaces().unwrap_or_default();
    let link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let others = interfaces.iter().filter_map(|interface| Some(interface.addr?.ip()));
    let mut others: Vec<IpAddr> = others
        .filter(|ip| ip.is_ipv4() == first.is_ipv4() && !link_local(ip) && !ip.is_loopback() && !ip.is_unspecified())
        .filter(|ip| *ip != first)
        .collect();
    others.sort_unstable();
    others.dedup();
    others.truncate(ADDRESSES_MAX - 1);
    std::iter::once(first).chain(others).collect()
}

/// Raises the limit of open files to the maximum: every bot has a socket.
fn allow_sockets() {
    let limit = getrlimit(Resource::Nofile);
    // Where that fails, the bots without a socket say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_clock_talkers_and_decoders_are_assigned() {
        let plan = Plan {
            url: String::new(),
            room: "r".parse().expect("a name"),
            participants: 3,
            publishers: 1,
            viewers: 2,
            clock: true,
            talkers: 2,
            decode: 4,
            tier: "auto".to_owned(),
            codec: Codec::Vp8,
            camera: Camera::default(),
            clip: None,
            speech: false,
            loss: 0.0,
            tcp: false,
            rate: 10.0,
            token: None,
        };
        let bots = plan.bots();
        let names =
            |chosen: fn(&&BotSpec) -> bool| bots.iter().filter(chosen).map(|bot| bot.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(|_| true), ["Bot-1", "Bot-2", "Bot-3", "Source-1", "Viewer-1", "Viewer-2"]);
        assert_eq!(names(|bot| bot.shows_clock), ["Bot-1"]);
        assert_eq!(names(|bot| bot.talker.is_some()), ["Bot-1", "Bot-2"]);
        assert_eq!(names(|bot| bot.decodes), ["Bot-2", "Bot-3", "Viewer-1", "Viewer-2"]);
        let only = Plan { participants: 1, publishers: 0, viewers: 0, ..plan };
        assert!(only.bots()[0].decodes, "a single bot reads its own clock");
    }
}
