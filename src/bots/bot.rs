//! One bot: a task with a line of its own, from the offer to the end of the session.
//!
//! Owns: the line, what is sent when, and when to give up. Does not know: other bots. It is told by a [`Role`] what to
//! do, says by [`World::settled`] when it is in (or will never be), and leaves a [`BotReport`] when it is told to go.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::api::{JoinError, Joined};
use super::barcode::Place;
use super::eye::Eye;
use super::footage::{Clock, Tone};
use super::line::{DATAGRAM_MAX, Line};
use super::report::BotReport;
use super::{Role, Task, World};
use crate::client::connection::{Collect, Connection};
use crate::client::description::{Answer, LocalDescription};
use crate::sdp::Direction;
use crate::time::{self, Moment, Timestamp};

/// How often a server that is busy is asked again.
const JOIN_TRIES: usize = 300;
/// Datagrams taken before anything else is looked at.
const BATCH: usize = 64;
/// One Opus packet.
const SOUND_EVERY: Duration = Duration::from_millis(20);
/// A sender that is later than this does not catch up: it goes on from now.
const LATEST: Duration = Duration::from_millis(500);
/// How often the bot that shows the time looks where it is shown.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much slower than its rate the clock's camera is. At the mixer's very own rate every picture would wait equally
/// long for the next tick, and the delay measured would be luck; so all waits come up.
const CLOCK_DRIFT: f32 = 1.01;
/// How loud the tone is said to be, and silence, in -dBov (RFC 6464).
const LOUD: u8 = 19;
const SILENT: u8 = 127;

/// Runs a bot until it is told to leave, or has failed.
pub(super) async fn live(task: Task, world: Arc<World>) -> BotReport {
    let mut report = BotReport::new(&task);
    let presence = Presence { world: Arc::clone(&world), settled: false };
    let leave = world.leave.clone();
    let joined = tokio::select! {
        joined = join(&task, &world, &mut report) => joined,
        () = leave.cancelled() => Err("told to leave before it had joined".to_owned()),
    };
    match joined {
        Err(reason) => report.failed = Some(reason),
        Ok((connection, line, session)) => {
            Bot::new(task, Arc::clone(&world), presence, connection, line).run(&mut report).await;
            let _one_of_few = world.requests.acquire().await;
            let api = world.api.clone();
            let left = spawn_blocking(move || api.leave(&session)).await;
            // Who was dropped is tried as well, but there may be nobody left to tell.
            if let (Ok(Err(error)), None) = (left, &report.failed) {
                tracing::warn!(%error, "a bot could not take its leave");
            }
        }
    }
    report
}

/// Says once that a bot is in the room, or else when it ends, however it does; and that it has ended.
struct Presence {
    world: Arc<World>,
    settled: bool,
}

impl Presence {
    fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.world.settled.add_permits(1);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.settle();
        self.world.ended.add_permits(1);
    }
}

/// Offers, posts, and begins to connect.
async fn join(task: &Task, world: &World, report: &mut BotReport) -> Result<(Connection, Line, String), String> {
    let mut line = None;
    let mut addresses = Vec::new();
    if !world.plan.tcp {
        let bound = Line::bind(world.own_addresses.iter().any(IpAddr::is_ipv6)).await;
        let (bound, port) = bound.map_err(|error| format!("no socket: {error} (`ulimit -n` may be too low)"))?;
        line = Some(bound);
        addresses.extend(world.own_addresses.iter().map(|ip| SocketAddr::new(*ip, port)));
    }
    let local = LocalDescription::new(&world.identity, task.role.direction(), world.plan.codec);
    let Joined { answer, session, participant } = post(task, world, local.offer(&addresses), report).await?;
    if task.shows_time {
        world.clock.lock().replace(participant);
    }
    let mut answer = Answer::parse(&answer)?;
    local.accept(&answer)?;
    let line = match line {
        Some(line) => line,
        None => {
            let line = Line::connect(&answer.tcp).await?;
            answer.candidates = answer.tcp.clone();
            line
        }
    };
    let collect = Collect { video: task.decodes, audio: false };
    Ok((Connection::new(&world.identity, local, answer, collect, time::now()), line, session))
}

/// Posts the offer, and does so again when the server asks to come back later.
async fn post(task: &Task, world: &World, offer: String, report: &mut BotReport) -> Result<Joined, String> {
    for _ in 0..JOIN_TRIES {
        let answered = {
            let _one_of_few = world.requests.acquire().await;
            let (api, room, tier) = (world.api.clone(), world.plan.room.clone(), world.plan.tier.clone());
            let (name, offer) = (task.name.clone(), offer.clone());
            report.posted = time::now();
            spawn_blocking(move || api.join(&room, &name, &tier, &offer)).await
        };
        match answered.map_err(|error| error.to_string())? {
            Ok(joined) => {
                report.answered_after(time::now());
                return Ok(joined);
            }
            Err(JoinError::Refused(reason)) => return Err(reason),
            Err(JoinError::Later(wait)) => {
                report.deferred += 1;
                sleep(wait).await;
            }
        }
    }
    Err("the server was too busy to take it".to_owned())
}

/// What a bot films with.
enum Camera {
    None,
    Film { at: usize },
    Clock(Box<Clock>),
}

impl Camera {
    /// The next frame of a live camera; never one of any other.
    async fn frame(&mut self) -> Option<(Vec<crate::media::EncodedPacket>, Duration)> {
        match self {
            Self::Clock(clock) => clock.frame().await,
            Self::None | Self::Film { .. } => std::future::pending().await,
        }
    }
}

struct Bot {
    task: Task,
    world: Arc<World>,
    presence: Presence,
    connection: Connection,
    line: Line,
    camera: Camera,
    tone: Option<Arc<Tone>>,
    eye: Option<Eye>,
    /// The media clock's zero.
    epoch: Timestamp,
    next_frame: Timestamp,
    next_sound: Timestamp,
    sounds: usize,
    next_look: Timestamp,
    bound_to: Option<SocketAddr>,
    in_room: bool,
    /// Everyone is there, and what comes is counted.
    counting: bool,
}

impl Bot {
    fn new(task: Task, world: Arc<World>, presence: Presence, connection: Connection, line: Line) -> Self {
        let epoch = time::now();
        Self {
            task,
            world,
            presence,
            connection,
            line,
            camera: Camera::None,
            tone: None,
            eye: None,
            epoch,
            next_frame: epoch,
            next_sound: epoch,
            sounds: 0,
            next_look: epoch,
            bound_to: None,
            in_room: false,
            counting: false,
        }
    }

    async fn run(mut self, report: &mut BotReport) {
        let leave = self.world.leave.clone();
        let mut leave = pin!(leave.cancelled());
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            tokio::select! {
                biased;
                () = &mut leave => break,
                () = self.line.readable() => {}
                frame = self.camera.frame() => match frame {
                    Some((packets, after)) => self.connection.send_video(&packets, after),
                    None => {
                        report.failed = Some("its encoder has failed".to_owned());
                        break;
                    }
                },
                () = &mut timer => {}
            }
            let moment = Moment::present();
            self.receive(moment);
            self.connection.tick(moment);
            if let Err(error) = self.enter_when_connected(moment.now, report) {
                report.failed = Some(error);
            }
            if let Some(reason) = self.connection.close_reason() {
                report.failed = Some(reason.to_owned());
            }
            if report.failed.is_some() {
                break;
            }
            self.begin_when_complete(moment.now);
            self.film(moment.now);
            self.watch(moment.now);
            self.send().await;
            self.set(timer.as_mut(), moment.now);
        }
        let moment = Moment::present();
        self.connection.video().finish(moment.now);
        self.connection.audio().finish(moment.now);
        report.finish(moment.now, &mut self.connection, self.eye.as_ref().map(Eye::seen));
        // A server that has closed the connection itself hears no more goodbyes.
        if report.failed.is_none() {
            self.connection.close(moment);
            self.send().await;
        }
    }

    fn receive(&mut self, moment: Moment) {
        let mut datagram = [0; DATAGRAM_MAX];
        let mut received = 0;
        let loss = if self.in_room { self.world.plan.loss } else { 0.0 };
        for _ in 0..BATCH {
            match self.line.try_recv(&mut datagram) {
                Ok((length, from)) => {
                    received += 1;
                    if loss > 0.0 && rand::random::<f64>() < loss {
                        continue;
                    }
                    self.connection.handle(moment, from, &datagram[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP answer to something we sent: the server has gone, which ICE will notice.
                Err(_) => {}
            }
        }
        self.world.received.fetch_add(received, Ordering::Relaxed);
    }

    fn enter_when_connected(&mut self, now: Timestamp, report: &mut BotReport) -> Result<(), String> {
        let (false, Some(connected)) = (self.in_room, self.connection.connected()) else { return Ok(()) };
        self.in_room = true;
        report.connected_at(connected);
        self.presence.settle();
        let plan = &self.world.plan;
        if self.task.role.direction().sends()
            && let Some(footage) = &self.world.footage
        {
            (self.next_frame, self.next_sound) = (now, now);
            let camera = if self.task.shows_time {
                Clock::new(plan.codec, plan.camera, self.epoch).map(|clock| Camera::Clock(Box::new(clock)))
            } else {
                // They are not to send their keyframes all at once.
                Ok(Camera::Film { at: rand::random_range(0..1 << 16) })
            };
            self.camera = camera.map_err(|error| error.to_string())?;
            self.tone = Some(Arc::clone(if self.task.talks { &footage.tone } else { &footage.silence }));
        }
        if self.task.decodes {
            let eye = Eye::new(plan.codec, Arc::clone(&self.world.spot)).map_err(|error| error.to_string())?;
            self.eye = Some(eye);
        }
        Ok(())
    }

    /// What was before everyone was in the room is about joining, and is not counted.
    fn begin_when_complete(&mut self, now: Timestamp) {
        if self.counting || !self.world.complete.load(Ordering::Relaxed) {
            return;
        }
        self.counting = true;
        self.connection.video().reset_stats(now);
        self.connection.audio().reset_stats(now);
        if let Some(eye) = &mut self.eye {
            eye.begin();
        }
    }

    /// Sends the sound and the pictures that are due.
    fn film(&mut self, now: Timestamp) {
        let Some(tone) = &self.tone else { return };
        if now.since(self.next_sound) > LATEST {
            self.next_sound = now;
        }
        while self.next_sound <= now {
            let level = if self.task.talks { LOUD } else { SILENT };
            let after = self.next_sound.since(self.epoch);
            self.connection.send_audio(tone.packet(self.sounds), after, Some(level), false);
            self.sounds += 1;
            self.next_sound = self.next_sound + SOUND_EVERY;
        }
        let keyframe = self.connection.take_keyframe_request();
        let mut every = Duration::from_secs(1) / self.world.plan.camera.fps;
        if self.task.shows_time {
            every = every.mul_f32(CLOCK_DRIFT);
        }
        if now < self.next_frame && !keyframe {
            return;
        }
        match &mut self.camera {
            Camera::None => {}
            Camera::Clock(clock) => clock.shoot(now, keyframe),
            Camera::Film { at } => {
                let Some(footage) = &self.world.footage else { return };
                *at = if keyframe { 0 } else { *at + 1 };
                let after = now.since(self.epoch);
                self.connection.send_video(footage.film.frame(*at), after);
            }
        }
        let late = now.since(self.next_frame) > LATEST || keyframe;
        self.next_frame = if late { now + every } else { self.next_frame + every };
    }

    /// Looks at the frames that came, and where the clock is to be seen.
    fn watch(&mut self, now: Timestamp) {
        if let Some(eye) = &mut self.eye {
            while let Some(frame) = self.connection.video().frame() {
                if !eye.look(&frame, now) {
                    self.connection.request_keyframe();
                }
            }
        }
        if self.task.shows_time && self.in_room && now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            let world = Arc::clone(&self.world);
            // Whether it succeeds shows in what the eyes read.
            drop(spawn_blocking(move || find_clock(&world)));
        }
    }

    /// Sends what the connection has to say; what the kernel does not take at once is lost, as on any network.
    async fn send(&mut self) {
        while let Some((to, datagram)) = self.connection.poll() {
            self.line.send(to, &datagram);
        }
        if self.bound_to.is_none()
            && let Some(server) = self.connection.remote_address()
        {
            self.bound_to = Some(server);
            self.line.stay_with(server).await;
        }
    }

    fn set(&self, timer: Pin<&mut Sleep>, now: Timestamp) {
        let mut deadline = self.connection.deadline(now);
        if self.tone.is_some() {
            deadline = deadline.min(self.next_frame).min(self.next_sound);
        }
        if self.task.shows_time && self.in_room {
            deadline = deadline.min(self.next_look);
        }
        let deadline = Instant::now() + deadline.since(now);
        // Moving a timer costs; one that rings too early only looks around.
        if timer.is_elapsed() || deadline < timer.deadline() {
            timer.reset(deadline);
        }
    }
}

/// Asks the server where the clock stands, for all eyes of the room.
fn find_clock(world: &World) {
    let Some(participant) = world.clock.lock().clone() else { return };
    let tile = world.api.room(&world.plan.room).and_then(|room| room.tile(&participant));
    let source = world.plan.camera.size;
    *world.spot.lock() = tile.map(|(tile, canvas)| Place { source, tile, canvas });
}

impl Role {
    const fn direction(self) -> Direction {
        match self {
            Self::Participant => Direction::SendRecv,
            Self::Publisher => Direction::SendOnly,
            Self::Viewer => Direction::RecvOnly,
        }
    }
}
