//! Who gets which packets: the table the link's reader walks for each packet of the mixer.
//!
//! Owns: [`RouteTable`], replaced whole when somebody comes, goes or changes; [`FanOut`], what streams have sent lately. Does
//! not know: how a subscriber sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::fanout::{Contributors, Names, Recent, Subscriber};
use crate::id::ParticipantId;
use crate::link::AudioTick;
use crate::link::output::ToOutput;
use crate::media::EncodedPacket;
use crate::process::OutputLink;
use crate::room::{OutputRoute, Route};
use crate::time::Timestamp;

/// One moment's routes.
#[derive(Default)]
pub(super) struct RouteTable {
    video: BTreeMap<u32, Vec<Arc<Subscriber>>>,
    audio: Vec<(ParticipantId, Arc<Subscriber>)>,
    /// By stream: outputs, and which of its streams it is to each.
    output_video: BTreeMap<u32, Vec<(u8, Arc<OutputLink>)>>,
    output_sound: Vec<Arc<OutputLink>>,
}

impl RouteTable {
    /// Adds what one participant gets, and tells its subscriber.
    pub(super) fn add(&mut self, route: &Route, to: &Arc<Subscriber>) {
        to.want(route.video);
        for serial in route.video.into_iter().chain(route.leaving) {
            self.video.entry(serial).or_default().push(to.clone());
        }
        if route.audio {
            self.audio.push((route.participant, to.clone()));
        }
    }

    /// Adds what one output gets.
    pub(super) fn add_output(&mut self, route: &OutputRoute, to: &Arc<OutputLink>) {
        for (stream, serial) in (0..).zip(&route.streams) {
            self.output_video.entry(*serial).or_default().push((stream, to.clone()));
        }
        if route.sound {
            self.output_sound.push(to.clone());
        }
    }
}

/// The mixer's media on their way to the subscribers.
pub(super) struct FanOut {
    routes: Arc<ArcSwap<RouteTable>>,
    /// What those who are heard are called.
    names: Names,
    recent: BTreeMap<u32, Recent>,
}

impl FanOut {
    pub(super) fn new(routes: Arc<ArcSwap<RouteTable>>, names: Names) -> Self {
        Self { routes, names, recent: BTreeMap::new() }
    }

    pub(super) fn video(&mut self, serial: u32, packet: &EncodedPacket, now: Timestamp) {
        let routes = self.routes.load();
        if packet.starts_keyframe {
            self.recent.retain(|serial, _| routes.video.contains_key(serial));
        }
        let recent = self.recent.entry(serial).or_default();
        recent.push(packet);
        for subscriber in routes.video.get(&serial).into_iter().flatten() {
            subscriber.push_video(serial, packet, recent, now);
        }
        for (stream, output) in routes.output_video.get(&serial).into_iter().flatten() {
            output.send(ToOutput::Video { stream: *stream, packet: packet.clone() });
        }
    }

    pub(super) fn audio(&self, tick: &AudioTick) {
        let routes = self.routes.load();
        let shared = [&tick.heard, &tick.heard_thin].map(|heard| Contributors::of(heard, None, &self.names));
        for (participant, subscriber) in &routes.audio {
            let Some(packet) = tick.packet_for(*participant) else { continue };
            let heard = tick.heard_by(*participant);
            // Who is silent is named to nobody: all of them get the same list.
            if heard.iter().any(|(talker, _)| talker == participant) {
                subscriber.push_audio(packet, &Contributors::of(heard, Some(*participant), &self.names));
            } else {
                subscriber.push_audio(packet, &shared[usize::from(std::ptr::eq(heard, tick.heard_thin.as_slice()))]);
            }
        }
        if let Some(packet) = &tick.everyone {
            routes.output_sound.iter().for_each(|output| output.send(ToOutput::Sound(packet.clone())));
        }
    }
}
