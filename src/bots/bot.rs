//! One bot: a task with a socket of its own, from the offer to the end of the session.
//!
//! Owns: the socket, when to send what, and when to give up. Does not know: other bots. In: a [`BotSpec`] and what all
//! bots share. Out: a permit of [`Shared::settled`] when it has joined or failed, and a [`BotReport`] when it ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::api::{JoinError, Joined};
use super::audio::{Microphone, PACKETS_PER_SECOND};
use super::barcode::Place;
use super::clock_reader::ClockReader;
use super::report::BotReport;
use super::socket::{DATAGRAM_MAX, Socket};
use super::video::{ClockCamera, Playback};
use super::{BotSpec, Role, Shared};
use crate::client::connection::{Collect, Connection};
use crate::client::description::{Answer, LocalDescription};
use crate::media::EncodedPacket;
use crate::sdp::Direction;
use crate::time::{self, Moment, Timestamp};

/// How often a join is retried when the server is busy.
const JOIN_TRIES: usize = 300;
/// Datagrams received before the timers are looked at.
const BATCH: usize = 64;
/// Length of one Opus packet.
const AUDIO_INTERVAL: Duration = Duration::from_millis(1_000 / PACKETS_PER_SECOND as u64);
/// A sender that is later than this does not catch up: it goes on from now.
const LATEST: Duration = Duration::from_millis(500);
/// How often the clock's tile is looked up.
const TILE_LOOKUP: Duration = Duration::from_secs(1);
/// The clock's frame interval, relative to its frame rate. At the mixer's own rate every picture would wait equally
/// long for the next tick, and the measured delay would be chance; so all waits occur.
const CLOCK_DRIFT: f32 = 1.01;

/// Runs a bot until it is cancelled or has failed.
pub(super) async fn run(spec: BotSpec, shared: Arc<Shared>) -> BotReport {
    let mut report = BotReport::new(&spec);
    let progress = Progress { shared: Arc::clone(&shared), settled: false };
    let cancel = shared.cancel.clone();
    let joined = tokio::select! {
        joined = join(&spec, &shared, &mut report) => joined,
        () = cancel.cancelled() => Err("stopped before it had joined".to_owned()),
    };
    match joined {
        Err(reason) => report.failed = Some(reason),
        Ok((connection, socket, session)) => {
            Bot::new(spec, Arc::clone(&shared), progress, connection, socket).run(&mut report).await;
            let _permit = shared.requests.acquire().await;
            let api = shared.api.clone();
            let left = spawn_blocking(move || api.leave(&session)).await;
            // After a failure the server may be gone; then a failed DELETE says nothing new.
            if let (Ok(Err(error)), None) = (left, &report.failed) {
                tracing::warn!(%error, "session of a bot not deleted");
            }
        }
    }
    report
}

/// Counts a bot as settled once it has joined or failed, and as ended when it is dropped.
struct Progress {
    shared: Arc<Shared>,
    settled: bool,
}

impl Progress {
    fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.shared.settled.add_permits(1);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.settle();
        self.shared.ended.add_permits(1);
    }
}

/// Sends the offer and starts the connection; gives the session's URL too.
async fn join(spec: &BotSpec, shared: &Shared, report: &mut BotReport) -> Result<(Connection, Socket, String), String> {
    let mut socket = None;
    let mut addresses = Vec::new();
    if !shared.plan.tcp {
        let bound = Socket::bind(shared.own_addresses.iter().any(IpAddr::is_ipv6)).await;
        let (bound, port) = bound.map_err(|error| format!("no socket: {error} (`ulimit -n` may be too low)"))?;
        socket = Some(bound);
        addresses.extend(shared.own_addresses.iter().map(|ip| SocketAddr::new(*ip, port)));
    }
    let mut local = LocalDescription::new(&shared.identity, spec.role.direction(), shared.plan.codec);
    if let Some(media) = shared.media.as_ref().filter(|_| !spec.shows_clock) {
        local = local.sending(media.video.as_ref().map_or(shared.plan.codec, |video| video.codec));
    }
    let Joined { answer, session, participant } = post(spec, shared, local.offer(&addresses), report).await?;
    if spec.shows_clock {
        shared.clock.lock().replace(participant);
    }
    let mut answer = Answer::parse(&answer)?;
    local.accept(&answer)?;
    let socket = match socket {
        Some(socket) => socket,
        None => {
            let socket = Socket::connect(&answer.tcp).await?;
            answer.candidates = answer.tcp.clone();
            socket
        }
    };
    let collect = Collect { video: spec.decodes, audio: false };
    Ok((Connection::new(&shared.identity, local, answer, collect, time::now()), socket, session))
}

/// Posts the offer, again after each `Retry-After`.
async fn post(spec: &BotSpec, shared: &Shared, offer: String, report: &mut BotReport) -> Result<Joined, String> {
    for _ in 0..JOIN_TRIES {
        let answered = {
            let _permit = shared.requests.acquire().await;
            let (api, room, tier) = (shared.api.clone(), shared.plan.room.clone(), shared.plan.tier.clone());
            let (name, offer) = (spec.name.clone(), offer.clone());
            report.posted = time::now();
            spawn_blocking(move || api.join(&room, &name, &tier, &offer)).await
        };
        match answered.map_err(|error| error.to_string())? {
            Ok(joined) => {
                report.answered_at(time::now());
                return Ok(joined);
            }
            Err(JoinError::Refused(reason)) => return Err(reason),
            Err(JoinError::Later(wait)) => {
                report.deferred += 1;
                sleep(wait).await;
            }
        }
    }
    Err(format!("the server was busy at each of {JOIN_TRIES} tries"))
}

/// The camera of a bot.
enum Camera {
    None,
    Loop(Playback),
    Clock { camera: Box<ClockCamera>, next_picture: Timestamp },
}

impl Camera {
    /// The next frame of the clock; pending for ever with any other camera. Cancel safe.
    async fn clock_frame(&mut self) -> Option<(Vec<EncodedPacket>, Duration)> {
        match self {
            Self::Clock { camera, .. } => camera.frame().await,
            Self::None | Self::Loop(_) => std::future::pending().await,
        }
    }
}

struct Bot {
    spec: BotSpec,
    shared: Arc<Shared>,
    progress: Progress,
    connection: Connection,
    socket: Socket,
    camera: Camera,
    microphone: Option<Microphone>,
    next_audio: Timestamp,
    clock_reader: Option<ClockReader>,
    /// Zero of media time.
    epoch: Timestamp,
    next_tile_lookup: Timestamp,
    connected_to: Option<SocketAddr>,
    in_room: bool,
    /// All bots have joined, and statistics are kept.
    measuring: bool,
}

impl Bot {
    fn new(spec: BotSpec, shared: Arc<Shared>, progress: Progress, connection: Connection, socket: Socket) -> Self {
        let epoch = time::now();
        Self {
            spec,
            shared,
            progress,
            connection,
            socket,
            camera: Camera::None,
            microphone: None,
            next_audio: epoch,
            clock_reader: None,
            epoch,
            next_tile_lookup: epoch,
            connected_to: None,
            in_room: false,
            measuring: false,
        }
    }

    async fn run(mut self, report: &mut BotReport) {
        let cancel = self.shared.cancel.clone();
        let mut cancel = pin!(cancel.cancelled());
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            tokio::select! {
                biased;
                () = &mut cancel => break,
                () = self.socket.readable() => {}
                frame = self.camera.clock_frame() => match frame {
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
            if let Err(error) = self.start_when_connected(moment.now, report) {
                report.failed = Some(error);
            }
            if let Some(reason) = self.connection.close_reason() {
                report.failed = Some(reason.to_owned());
            }
            if report.failed.is_some() {
                break;
            }
            self.measure_when_complete(moment.now);
            self.send_audio(moment.now);
            self.send_video(moment.now);
            self.read_clock(moment.now);
            self.flush().await;
            self.reset(timer.as_mut(), moment.now);
        }
        let moment = Moment::present();
        self.connection.video().finish(moment.now);
        self.connection.audio().finish(moment.now);
        report.finish(moment.now, &mut self.connection, self.clock_reader.as_ref().map(ClockReader::readings));
        // After a failure there is no connection to close.
        if report.failed.is_none() {
            self.connection.close(moment);
            self.flush().await;
        }
    }

    fn receive(&mut self, moment: Moment) {
        let mut datagram = [0; DATAGRAM_MAX];
        let mut received = 0;
        let loss = if self.in_room { self.shared.plan.loss } else { 0.0 };
        for _ in 0..BATCH {
            match self.socket.try_recv(&mut datagram) {
                Ok((length, from)) => {
                    received += 1;
                    if loss > 0.0 && rand::random::<f64>() < loss {
                        continue;
                    }
                    self.connection.handle(moment, from, &datagram[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier datagram; consent decides whether the server is still there.
                Err(_) => {}
            }
        }
        self.shared.received.fetch_add(received, Ordering::Relaxed);
    }

    /// Starts camera, microphone and decoder once the connection is up.
    fn start_when_connected(&mut self, now: Timestamp, report: &mut BotReport) -> Result<(), String> {
        let (false, Some(connected)) = (self.in_room, self.connection.connected()) else { return Ok(()) };
        self.in_room = true;
        report.connected_at(connected);
        self.progress.settle();
        let plan = &self.shared.plan;
        if self.spec.role.direction().sends()
            && let Some(media) = &self.shared.media
        {
            self.next_audio = now;
            self.camera = if self.spec.shows_clock {
                let camera =
                    ClockCamera::new(plan.codec, plan.camera, self.epoch).map_err(|error| error.to_string())?;
                Camera::Clock { camera: Box::new(camera), next_picture: now }
            } else {
                let playback = |video| Playback::new(Arc::clone(video), rand::random(), now.since(self.epoch));
                media.video.as_ref().map_or(Camera::None, |video| Camera::Loop(playback(video)))
            };
            self.microphone = Some(Microphone::new(Arc::clone(&media.audio), self.spec.talker));
        }
        if self.spec.decodes {
            let reader = ClockReader::new(plan.codec, Arc::clone(&self.shared.clock_tile));
            self.clock_reader = Some(reader.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Begins the statistics once all bots have joined: what was before belongs to joining.
    fn measure_when_complete(&mut self, now: Timestamp) {
        if self.measuring || !self.shared.complete.load(Ordering::Relaxed) {
            return;
        }
        self.measuring = true;
        self.connection.video().reset_stats(now);
        self.connection.audio().reset_stats(now);
        if let Some(reader) = &mut self.clock_reader {
            reader.reset();
        }
    }

    fn send_audio(&mut self, now: Timestamp) {
        let Some(microphone) = &mut self.microphone else { return };
        if now.since(self.next_audio) > LATEST {
            self.next_audio = now;
        }
        while self.next_audio <= now {
            // Ticks are counted from one moment for all bots, so that they take turns.
            let tick = (self.next_audio.since(self.shared.epoch).as_micros() / AUDIO_INTERVAL.as_micros()) as usize;
            if let Some(packet) = microphone.packet(tick) {
                let after = self.next_audio.since(self.epoch);
                self.connection.send_audio(packet.payload, after, Some(packet.level), packet.marker);
            }
            self.next_audio = self.next_audio + AUDIO_INTERVAL;
        }
    }

    fn send_video(&mut self, now: Timestamp) {
        let keyframe = self.connection.take_keyframe_request();
        match &mut self.camera {
            Camera::None => {}
            Camera::Loop(playback) => {
                let now = now.since(self.epoch);
                if keyframe {
                    playback.request_keyframe(now);
                }
                while let Some((packets, after)) = playback.next(now) {
                    self.connection.send_video(packets, after);
                }
            }
            Camera::Clock { camera, next_picture } => {
                if now < *next_picture && !keyframe {
                    return;
                }
                camera.take_picture(now, keyframe);
                let interval = (Duration::from_secs(1) / self.shared.plan.camera.fps).mul_f32(CLOCK_DRIFT);
                let late = now.since(*next_picture) > LATEST || keyframe;
                *next_picture = if late { now } else { *next_picture } + interval;
            }
        }
    }

    /// Decodes the received frames, and looks up where the clock is shown.
    fn read_clock(&mut self, now: Timestamp) {
        if let Some(reader) = &mut self.clock_reader {
            while let Some(frame) = self.connection.video().frame() {
                if !reader.decode(&frame, now) {
                    self.connection.request_keyframe();
                }
            }
        }
        if self.spec.shows_clock && self.in_room && now >= self.next_tile_lookup {
            self.next_tile_lookup = now + TILE_LOOKUP;
            let shared = Arc::clone(&self.shared);
            // A failure shows as missing readings.
            drop(spawn_blocking(move || look_up_tile(&shared)));
        }
    }

    /// Sends all queued datagrams; what the kernel does not take at once is lost.
    async fn flush(&mut self) {
        while let Some((to, datagram)) = self.connection.poll() {
            self.socket.send(to, &datagram);
        }
        if self.connected_to.is_none()
            && let Some(server) = self.connection.remote_address()
        {
            self.connected_to = Some(server);
            self.socket.connect_to(server).await;
        }
    }

    fn reset(&self, timer: Pin<&mut Sleep>, now: Timestamp) {
        let mut deadline = self.connection.deadline(now);
        if self.microphone.is_some() {
            deadline = deadline.min(self.next_audio);
        }
        match &self.camera {
            Camera::None => {}
            Camera::Loop(playback) => deadline = deadline.min(self.epoch + playback.due()),
            Camera::Clock { next_picture, .. } => deadline = deadline.min(*next_picture),
        }
        if self.spec.shows_clock && self.in_room {
            deadline = deadline.min(self.next_tile_lookup);
        }
        let deadline = Instant::now() + deadline.since(now);
        // Moving a timer costs; one that fires too early only finds nothing due.
        if timer.is_elapsed() || deadline < timer.deadline() {
            timer.reset(deadline);
        }
    }
}

/// Asks the server where the clock is shown, for all clock readers.
fn look_up_tile(shared: &Shared) {
    let Some(participant) = shared.clock.lock().clone() else { return };
    let tile = shared.api.room(&shared.plan.room).and_then(|room| room.tile(&participant));
    let source = shared.plan.camera.size;
    *shared.clock_tile.lock() = tile.map(|(tile, fit, canvas)| Place { source, tile, fit, canvas });
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
