//! Bots: clients that load a server as people would, and measure what they get.
//!
//! Owns: a crowd of bots, each with real ICE, DTLS and SRTP, what they send and how they judge what comes back. Does not
//! know: the server's insides. It meets the server only by HTTP and UDP, as any client does, so it can load one on
//! another machine. In: a [`Plan`]. Out: a [`Report`].
//!
//! A thousand viewers have to fit in a core beside the server's. So a bot is not a peer connection of the crate `rtc`,
//! which costs over 10 µs a packet, but its protocols put together: a task and a socket each, a packet is decrypted,
//! counted and dropped. Only bots that are told to decode do.

mod api;
mod barcode;
pub mod bench;
mod bot;
mod eye;
mod footage;
mod line;
mod report;

use std::net::IpAddr;
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
use self::eye::Spot;
pub use self::footage::Camera;
use self::footage::Footage;
pub use self::report::{BotReport, Load, Report};
use crate::client;
use crate::codec::CodecError;
use crate::id::RoomName;
use crate::media::Codec;
use crate::time;
use crate::transport::secure::Identity;

/// HTTP requests at a time; a crowd that leaves at once is not to be a flood.
const REQUESTS: usize = 16;

/// Most addresses that are offered.
const ADDRESSES_MAX: usize = 8;

/// Why a crowd cannot gather.
#[derive(Debug, thiserror::Error)]
pub enum BotsError {
    /// The server cannot be used.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// What is sent cannot be made.
    #[error("the bots' film cannot be made: {0}")]
    Film(#[from] CodecError),
    /// No certificate.
    #[error("the bots' certificate cannot be made: {0}")]
    Identity(String),
}

/// What a crowd does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server's HTTP address.
    pub url: String,
    /// The room, which is made if need be.
    pub room: RoomName,
    /// Bots that send and receive.
    pub participants: usize,
    /// Bots that only send.
    pub publishers: usize,
    /// Bots that only receive.
    pub viewers: usize,
    /// The first sender shows the time.
    pub clock: bool,
    /// How many of the senders make a sound.
    pub talkers: usize,
    /// How many of the receivers decode, and read the clock.
    pub decode: usize,
    /// Quality asked for.
    pub tier: String,
    /// Codec of the video, both ways.
    pub codec: Codec,
    /// What senders film.
    pub camera: Camera,
    /// Part of what comes in that is thrown away, 0 to 1, once a bot is in the room: a bad network.
    pub loss: f64,
    /// By ICE over TCP instead of UDP.
    pub tcp: bool,
    /// Joins a second.
    pub rate: f64,
    /// A bearer token.
    pub token: Option<String>,
}

/// What a bot is in the room.
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
struct Task {
    name: String,
    role: Role,
    shows_time: bool,
    talks: bool,
    decodes: bool,
}

impl Plan {
    /// Every bot's task, in the order of joining: who sends comes first, so that there is something to see.
    fn tasks(&self) -> Vec<Task> {
        let roles = [
            (Role::Participant, "Bot", self.participants),
            (Role::Publisher, "Source", self.publishers),
            (Role::Viewer, "Viewer", self.viewers),
        ];
        let mut tasks: Vec<Task> = roles
            .into_iter()
            .flat_map(|(role, name, count)| (1..=count).map(move |number| (role, format!("{name}-{number}"))))
            .map(|(role, name)| Task { name, role, shows_time: false, talks: false, decodes: false })
            .collect();
        for (i, task) in tasks.iter_mut().filter(|task| task.role != Role::Viewer).enumerate() {
            task.shows_time = self.clock && i == 0;
            task.talks = i < self.talkers;
        }
        // Who shows the time sees it last of all: others are farther away.
        let (eager, rest): (Vec<_>, Vec<_>) =
            tasks.iter_mut().filter(|task| task.role != Role::Publisher).partition(|task| !task.shows_time);
        for task in eager.into_iter().chain(rest).take(self.decode) {
            task.decodes = true;
        }
        tasks
    }
}

/// What all bots share.
struct World {
    plan: Plan,
    api: Api,
    own_addresses: Vec<IpAddr>,
    identity: Identity,
    /// None where nobody sends.
    footage: Option<Footage>,
    /// Who shows the time, once the server has named it.
    clock: Mutex<Option<String>>,
    spot: Spot,
    requests: Semaphore,
    /// One permit for each bot that is in the room, or never will be.
    settled: Semaphore,
    /// One permit for each bot that has ended.
    ended: Semaphore,
    /// Everyone is in the room, or never will be.
    complete: AtomicBool,
    /// Datagrams received by all.
    received: AtomicU64,
    leave: CancellationToken,
}

/// Bots in a room.
pub struct Crowd {
    world: Arc<World>,
    bots: JoinSet<BotReport>,
    size: usize,
    began: Mark,
}

/// A point from which load is measured.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: time::Timestamp,
    cpu: Duration,
    received: u64,
}

impl Crowd {
    /// Lets all bots of a plan join, one after the other, and waits until each is in the room or has failed. `leave` ends
    /// it all, whenever it is cancelled.
    ///
    /// # Errors
    /// When nothing can be begun at all. A bot that fails is told of in the report.
    pub async fn gather(plan: Plan, leave: CancellationToken) -> Result<Self, BotsError> {
        allow_sockets();
        let api = Api::new(&plan.url, plan.token.clone())?;
        let own_addresses = own_addresses(api.own_address()?);
        let identity = client::identity().map_err(BotsError::Identity)?;
        let sends = plan.participants + plan.publishers > 0;
        let footage = if sends {
            let (codec, camera) = (plan.codec, plan.camera);
            let filmed = tokio::task::spawn_blocking(move || Footage::new(codec, camera)).await;
            Some(filmed.map_err(|_| CodecError::Failed)??)
        } else {
            None
        };
        let tasks = plan.tasks();
        let size = tasks.len();
        let world = Arc::new(World {
            own_addresses,
            identity,
            footage,
            api,
            clock: Mutex::default(),
            spot: Spot::default(),
            requests: Semaphore::new(REQUESTS),
            settled: Semaphore::new(0),
            ended: Semaphore::new(0),
            complete: AtomicBool::new(false),
            received: AtomicU64::new(0),
            leave: leave.clone(),
            plan,
        });
        let mut bots = JoinSet::new();
        let mut joins = interval(Duration::from_secs_f64(1.0 / world.plan.rate.clamp(0.1, 1_000.0)));
        joins.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for task in tasks {
            tokio::select! {
                _ = joins.tick() => {}
                () = leave.cancelled() => break,
            }
            bots.spawn(bot::live(task, Arc::clone(&world)));
        }
        // Until every bot is in the room or has failed.
        tokio::select! {
            _ = world.settled.acquire_many(bots.len() as u32) => {}
            () = leave.cancelled() => {}
        }
        world.complete.store(true, Ordering::Relaxed);
        let began = Mark::of(&world);
        Ok(Self { world, bots, size, began })
    }

    /// Lets the bots be in the room for a while; ends at once when they are told to leave, or all have failed.
    pub async fn stay(&self, duration: Duration) {
        tokio::select! {
            () = sleep(duration) => {}
            _ = self.world.ended.acquire_many(self.bots.len() as u32) => {}
            () = self.world.leave.cancelled() => {}
        }
    }

    /// Ends all sessions and tells how it was.
    pub async fn leave(mut self) -> Report {
        let (from, to) = (self.began, Mark::of(&self.world));
        self.world.leave.cancel();
        let mut bots = Vec::with_capacity(self.size);
        while let Some(ended) = self.bots.join_next().await {
            match ended {
                Ok(report) => bots.push(report),
                Err(error) => tracing::error!(%error, "a bot has panicked"),
            }
        }
        let load = Load {
            seconds: to.at.since(from.at).as_secs_f64(),
            cpu_seconds: to.cpu.saturating_sub(from.cpu).as_secs_f64(),
            packets: to.received - from.received,
        };
        Report::new(&self.world.plan, self.size, bots, load)
    }
}

impl Mark {
    fn of(world: &World) -> Self {
        Self { at: time::now(), cpu: time::process_cpu(), received: world.received.load(Ordering::Relaxed) }
    }
}

/// Where the server may see us: the address on the way to its HTTP, and where its media port is another way, any other
/// of this machine in the same family. A browser offers them all as well.
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

/// Every bot has a socket: asks for as many files as this process may have.
fn allow_sockets() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, bots will say which socket they could not have.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_dealt_out() {
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
            loss: 0.0,
            tcp: false,
            rate: 10.0,
            token: None,
        };
        let tasks = plan.tasks();
        let names =
            |chosen: fn(&&Task) -> bool| tasks.iter().filter(chosen).map(|t| t.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(|_| true), ["Bot-1", "Bot-2", "Bot-3", "Source-1", "Viewer-1", "Viewer-2"]);
        assert_eq!(names(|task| task.shows_time), ["Bot-1"]);
        assert_eq!(names(|task| task.talks), ["Bot-1", "Bot-2"]);
        assert_eq!(names(|task| task.decodes), ["Bot-2", "Bot-3", "Viewer-1", "Viewer-2"]);
        let only = Plan { participants: 1, publishers: 0, viewers: 0, ..plan };
        assert!(only.tasks()[0].decodes, "one alone sees its own clock");
    }
}
