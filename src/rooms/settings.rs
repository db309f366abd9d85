//! The settings and counters of all rooms of a node.
//!
//! Owns: [`ServerSettings`], with the settings of a room and its mixer derived from them; [`RoomCounters`]. Does not
//! know: where settings come from, who reads counters.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::task::TaskTracker;

use super::hls::HlsBroadcasts;
use crate::destination::Guard;
use crate::filter::Catalog;
use crate::id::RoomName;
use crate::layout::Layout;
use crate::link::MixerSettings;
use crate::media::{Codec, Size};
use crate::process::ProcessCommand;
use crate::recordings::Library;
use crate::room::RoomSettings;
use crate::rooms::inputs::InputCounters;
use crate::rooms::mixing::MixerCounters;
use crate::rooms::uplink::UplinkCounters;
use crate::tier::Ladder;
use crate::time::Timestamp;

/// The settings of all rooms of a node.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Starts a mixer process.
    pub mixer: ProcessCommand,
    /// Starts an output process.
    pub output: ProcessCommand,
    /// Folder and disk limit of recordings.
    pub recordings: RecordingSettings,
    /// Takes over recordings that have ended.
    pub library: Library,
    /// The addresses that broadcasts may be sent to.
    pub broadcasts: Guard,
    /// How inputs are started, and their permitted sources.
    pub inputs: InputServerSettings,
    /// Most inputs of a room at a time.
    pub max_inputs: usize,
    /// Most recordings and broadcasts of a room at a time.
    pub max_outputs: usize,
    /// Size of the composed picture.
    pub canvas: Size,
    /// Frames a second.
    pub fps: u32,
    /// Sizes and bitrates of the tiers.
    pub ladder: Ladder,
    /// Video codecs that may be sent, in order of preference where the offer has none.
    pub encodable: Vec<Codec>,
    /// Encode H.264 with openh264 instead of x264.
    pub openh264: bool,
    /// Largest picture taken from a sender.
    pub max_source: Size,
    /// Time in which tiles move to new places, in milliseconds; 0 for no transitions.
    pub transition_ms: u32,
    /// The filters that moderators may apply.
    pub filters: Arc<Catalog>,
    /// CPU time that a filter may take for a frame.
    pub filter_budget: Duration,
    /// Threads of a mixer for composition, and of each encoder.
    pub mixer_threads: u32,
    /// The first join creates a room.
    pub auto_create: bool,
    /// Most participants of a room that send.
    pub max_participants: usize,
    /// Most viewers of a room.
    pub max_viewers: usize,
    /// Whether the only two participants of a room may send to each other directly.
    pub direct_for_two: bool,
    /// Most rooms at a time.
    pub max_rooms: usize,
    /// How long the mixer of an empty room keeps running.
    pub linger: Duration,
    /// Most chat messages of a room that are kept for those who come.
    pub chat_history: usize,
    /// Counters of all rooms.
    pub counters: RoomCounters,
    /// The HLS broadcasts of all rooms.
    pub hls: HlsBroadcasts,
    /// Recordings and broadcasts that are finishing; they outlive their rooms.
    pub endings: TaskTracker,
}

/// Folder and disk limit of recordings.
#[derive(Debug, Clone)]
pub struct RecordingSettings {
    /// The folder.
    pub folder: PathBuf,
    /// Bytes free on the disk below which a recording stops.
    pub floor_bytes: u64,
}

/// How inputs are started, and their permitted sources.
#[derive(Debug, Clone)]
pub struct InputServerSettings {
    /// Starts an input process.
    pub command: ProcessCommand,
    /// The addresses that inputs may connect to.
    pub guard: Guard,
    /// The folder of media files.
    pub media_dir: PathBuf,
}

impl ServerSettings {
    pub(super) fn mixer_settings(&self, room: &RoomName, epoch: Timestamp) -> MixerSettings {
        MixerSettings {
            room: room.clone(),
            epoch,
            max_source: self.max_source,
            openh264: self.openh264,
            transition_ms: self.transition_ms,
            filter_budget: self.filter_budget,
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
            filters: self.filters.clone(),
            linger: self.linger,
            permanent,
            chat_history: self.chat_history,
        }
    }
}

/// Counters of all rooms.
#[derive(Debug, Default, Clone)]
pub struct RoomCounters {
    /// Participants admitted and answered.
    pub joins: Counter,
    /// Mixers that died or hung and were replaced.
    pub mixer_restarts: Counter,
    /// Keyframe requests of sessions that have ended, which waited because their receiver had made too many.
    pub keyframes_deferred: Counter,
    /// Sources that are neither shown nor mixed any more, because they broke decoders or mixers.
    pub sources_quarantined: Counter,
    /// Counters of all mixers.
    pub mixers: MixerCounters,
    /// Counters of all inputs.
    pub inputs: InputCounters,
    /// Packets of participants that reach no mixer.
    pub uplinks: UplinkCounters,
    /// Rooms that exist.
    pub rooms: Gauge,
    /// Sessions that are open.
    pub sessions: Gauge,
}

impl RoomCounters {
    /// Registers the counters.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("joins", "Joins answered", self.joins.clone());
        registry.register(
            "keyframe_requests_deferred",
            "Keyframe requests that waited because their receiver had made too many; counted when its session ends",
            self.keyframes_deferred.clone(),
        );
        registry.register(
            "sources_quarantined",
            "Sources isolated because their frames broke decoders or the mixer died while it decoded them",
            self.sources_quarantined.clone(),
        );
        registry.register("mixer_restarts", "Mixers that died or hung and were replaced", self.mixer_restarts.clone());
        self.mixers.register(registry);
        self.inputs.register(registry);
        self.uplinks.register(registry);
        registry.register("rooms", "Rooms that exist", self.rooms.clone());
        registry.register("sessions", "Sessions that are open", self.sessions.clone());
    }
}
