//! What all rooms of a node are made with, and what is counted of them.
//!
//! Owns: [`ServerSettings`], and what a room and its mixer take of them; [`RoomCounters`]. Does not know: where they come
//! from.

use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::task::TaskTracker;

use super::hls::HlsBroadcasts;
use crate::destination::Guard;
use crate::id::RoomName;
use crate::layout::Layout;
use crate::link::MixerSettings;
use crate::media::{Codec, Size};
use crate::process::ProcessCommand;
use crate::recordings::Library;
use crate::room::RoomSettings;
use crate::rooms::mixing::MixerCounters;
use crate::rooms::uplink::UplinkCounters;
use crate::tier::Ladder;
use crate::time::Timestamp;

/// What all rooms of a node are made with.
#[derive(Debug)]
pub struct ServerSettings {
    /// How to start a mixer.
    pub mixer: ProcessCommand,
    /// How to start a recording or broadcast.
    pub output: ProcessCommand,
    /// Where recordings go, and when one stops for want of room.
    pub recordings: RecordingSettings,
    /// What becomes of recordings that have ended.
    pub library: Library,
    /// Which addresses broadcasts may go to.
    pub broadcasts: Guard,
    /// How inputs are started, and where they may be from.
    pub inputs: InputServerSettings,
    /// How many inputs may run in one room.
    pub max_inputs: usize,
    /// How many recordings and broadcasts may run in one room.
    pub max_outputs: usize,
    /// The picture everyone gets.
    pub canvas: Size,
    /// Frames a second.
    pub fps: u32,
    /// Sizes and bitrates of the tiers.
    pub ladder: Ladder,
    /// Video codecs that may be sent to people, best first when the offer does not care.
    pub encodable: Vec<Codec>,
    /// Encode H.264 with openh264 instead of x264.
    pub openh264: bool,
    /// Largest picture taken from a sender.
    pub max_source: Size,
    /// Threads of a mixer for composing and for each encoder.
    pub mixer_threads: u32,
    /// Rooms are made by the first join.
    pub auto_create: bool,
    /// How many may be in one room who send.
    pub max_participants: usize,
    /// How many may be in one room who only receive.
    pub max_viewers: usize,
    /// Whether two who are alone in a room may send to each other directly.
    pub direct_for_two: bool,
    /// How many rooms may run.
    pub max_rooms: usize,
    /// How long an empty room's mixer stays.
    pub linger: Duration,
    /// Counted here, read by the metrics.
    pub counters: RoomCounters,
    /// What is broadcast by HLS.
    pub hls: HlsBroadcasts,
    /// Recordings and broadcasts that are coming to an end; they outlive their rooms.
    pub endings: TaskTracker,
}

/// Where recordings go, and when one stops for want of room.
#[derive(Debug, Clone)]
pub struct RecordingSettings {
    /// The folder.
    pub folder: PathBuf,
    /// A recording stops when less than so many bytes are free on its disk.
    pub floor_bytes: u64,
}

/// How inputs are started, and where they may be from.
#[derive(Debug, Clone)]
pub struct InputServerSettings {
    /// How to start one.
    pub command: ProcessCommand,
    /// Which addresses they may be fetched from.
    pub guard: Guard,
    /// Where files are played from.
    pub media_dir: PathBuf,
}

impl ServerSettings {
    pub(super) fn mixer_settings(&self, room: &RoomName, epoch: Timestamp) -> MixerSettings {
        MixerSettings {
            room: room.clone(),
            epoch,
            max_source: self.max_source,
            openh264: self.openh264,
            threads: self.mixer_threads,
            sounds: self.ladder.sounds,
        }
    }

    pub(super) fn room_settings(&self, name: RoomName, permanent: bool) -> RoomSettings {
        RoomSettings {
            name,
            layout: Layout::default(),
            canvas: self.canvas,
            fps: self.fps,
            ladder: self.ladder,
            max_participants: self.max_participants,
            max_viewers: self.max_viewers,
            max_outputs: self.max_outputs,
            max_inputs: self.max_inputs,
            direct_for_two: self.direct_for_two,
            linger: self.linger,
            permanent,
        }
    }
}

/// What happened in all rooms.
#[derive(Debug, Default, Clone)]
pub struct RoomCounters {
    /// People let in.
    pub joins: Counter,
    /// Mixers that died or hung.
    pub mixer_restarts: Counter,
    /// What mixers did.
    pub mixers: MixerCounters,
    /// Packets of participants that reach no mixer.
    pub uplinks: UplinkCounters,
    /// Rooms that run.
    pub rooms: Gauge,
    /// Sessions that are open.
    pub sessions: Gauge,
}

impl RoomCounters {
    /// Puts them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("joins", "People let into rooms", self.joins.clone());
        registry.register("mixer_restarts", "Mixers that died or hung and were replaced", self.mixer_restarts.clone());
        self.mixers.register(registry);
        self.uplinks.register(registry);
        registry.register("rooms", "Rooms that run", self.rooms.clone());
        registry.register("sessions", "Sessions that are open", self.sessions.clone());
    }
}
