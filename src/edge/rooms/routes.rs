//! Who gets which packets: the table the link's reader walks for each packet of the mixer.
//!
//! Owns: [`RouteTable`], replaced whole when somebody comes, goes or changes. Does not know: how a subscriber sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::edge::fanout::Subscriber;
use crate::id::ParticipantId;
use crate::link::AudioTick;
use crate::media::EncodedPacket;

/// One moment's routes.
#[derive(Default)]
pub(super) struct RouteTable {
    video: BTreeMap<u32, Vec<Arc<Subscriber>>>,
    audio: Vec<(ParticipantId, Arc<Subscriber>)>,
}

impl RouteTable {
    pub(super) fn add(&mut self, participant: ParticipantId, video: Option<u32>, audio: bool, to: Arc<Subscriber>) {
        if let Some(serial) = video {
            self.video.entry(serial).or_default().push(to.clone());
        }
        if audio {
            self.audio.push((participant, to));
        }
    }

    pub(super) fn video(&self, serial: u32, packet: &EncodedPacket) {
        for subscriber in self.video.get(&serial).into_iter().flatten() {
            subscriber.push_video(serial, packet);
        }
    }

    pub(super) fn audio(&self, tick: &AudioTick) {
        for (participant, subscriber) in &self.audio {
            let own = tick.own.iter().find(|(talker, _)| talker == participant);
            if let Some(packet) = own.map_or(tick.everyone.as_ref(), |(_, own)| own.as_ref()) {
                subscriber.push_audio(packet);
            }
        }
    }
}
