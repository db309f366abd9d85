//! Mix plan, streams, routes and uplink limits, derived from the participants after each input.
//!
//! Owns: their derivation. Does not know: when inputs come. In: the room's state; out: orders and routes where they
//! differ.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Order, Person, Room, Route};
use crate::id::ParticipantId;
use crate::layout::Scene;
use crate::media::{Kind, Size, SourceKind, StreamKey, Tier};
use crate::plan::{Listener, MixInput, MixPlan, SourceSpec, StreamSet, StreamSpec};
use crate::room::document::Audience;
use crate::tier::uplink::{SOUND, deserved};

impl Room {
    /// The audience: whether a connected participant sends, and the number of connected viewers.
    pub fn audience(&self) -> Audience {
        let connected = || self.people.values().filter(|person| person.connected);
        Audience {
            publishing: connected().any(|person| person.sources.iter().any(|source| source.codec.is_some())),
            viewers: connected().filter(|person| person.sources.is_empty()).count(),
        }
    }

    /// Derives everything anew and emits what differs.
    pub(super) fn refresh(&mut self) {
        if self.ended {
            return;
        }
        self.apply_rules();
        self.follow_direct();
        self.refresh_views();
        let mix = self.derive_mix();
        if mix != self.mix {
            self.mix = mix;
            self.effects.push_back(Effect::Order(Order::Mix(self.mix.clone())));
        }
        let streams = self.derive_streams();
        if streams != self.streams {
            self.streams = streams;
            self.effects.push_back(Effect::Order(Order::Streams(self.streams.clone())));
        }
        self.refresh_routes();
        self.refresh_output_routes();
        self.refresh_uplink_limits();
        self.refresh_wanted();
    }

    /// Repeats all orders for a new mixer.
    pub(super) fn replay(&mut self) {
        // Images come before the filters that show them, and filters before the first frame of their source.
        self.replay_images();
        self.replay_filters();
        let sources: Vec<SourceSpec> = self.sources().collect();
        self.effects.extend(sources.into_iter().map(|spec| Effect::Order(Order::Source(spec))));
        let scenes: Vec<Scene> = self.views.scenes().cloned().collect();
        self.effects.extend(scenes.into_iter().map(|scene| Effect::Order(Order::Scene(scene))));
        self.effects.push_back(Effect::Order(Order::Mix(self.mix.clone())));
        self.effects.push_back(Effect::Order(Order::Streams(self.streams.clone())));
        self.replay_overlays();
    }

    fn derive_mix(&self) -> MixPlan {
        let here = || self.people.iter().filter(|(_, person)| person.connected);
        MixPlan {
            sources: here()
                .filter(|(_, person)| !person.is_muted())
                .flat_map(|(_, person)| person.sources.iter().map(|source| (source, person.gain_db)))
                .filter(|(source, _)| source.kind.kind() == Kind::Audio && source.is_usable())
                .map(|(source, gain_db)| MixInput { source: source.id, gain_db })
                .collect(),
            listeners: here()
                .filter_map(|(id, person)| {
                    let quality = person.receives_audio.filter(|_| !person.direct)?.with(person.tier());
                    Some(Listener { participant: *id, quality })
                })
                .collect(),
            outputs: self.outputs.want_sound(),
        }
    }

    fn derive_streams(&mut self) -> StreamSet {
        let keys: BTreeSet<StreamKey> = self.subscribers.keys().cloned().chain(self.outputs.keys()).collect();
        self.serials.retain(|key, _| keys.contains(key));
        let taken_by_outputs: BTreeSet<StreamKey> = self.outputs.keys().collect();
        let streams = keys
            .into_iter()
            .filter_map(|key| {
                // The composition of a view remains until its streams have ended.
                let scene = self.views.scene(&key.view)?;
                let (canvas, view_fps, shows_screen) = (scene.canvas, scene.fps, is_mainly_screen(scene));
                let serial = *self.serials.entry(key.clone()).or_insert_with(|| {
                    self.next_serial += 1;
                    self.next_serial - 1
                });
                let Some(spec) = self.settings.ladder.spec(key.tier) else {
                    unreachable!("no stream is of the tier audio")
                };
                let steady = taken_by_outputs.contains(&key);
                // The tier `high` has the size of the canvas; the ladder only gives its bitrate.
                let (size, fps) = match key.tier {
                    Tier::High => (canvas, view_fps),
                    _ => {
                        // Players of recordings and broadcasts would have to follow the change of the size.
                        let spec = if shows_screen && !steady { spec.for_screen(canvas) } else { spec };
                        (fitting(spec.size, canvas), spec.fps.min(view_fps))
                    }
                };
                Some(StreamSpec { serial, key, size, fps, bitrate_kbps: spec.payload_kbps(fps), steady })
            })
            .collect();
        StreamSet { streams }
    }

    fn refresh_routes(&mut self) {
        let routes: Vec<Route> = self
            .people
            .iter()
            .filter(|(_, person)| person.connected)
            .map(|(participant, person)| Route {
                participant: *participant,
                video: person
                    .receives_video
                    .filter(|_| !person.direct)
                    .map(|codec| (person.received.view.clone(), codec)),
                tier: person.tier,
                audio: person.receives_audio.is_some() && !person.direct,
            })
            .collect();
        if routes == self.routes {
            return;
        }
        self.routes = routes;
        self.effects.push_back(Effect::Routes(self.routes.clone()));
    }

    /// Limits senders to the bitrate for the size of their largest tiles in the streams that are encoded.
    fn refresh_uplink_limits(&mut self) {
        let mut sources: BTreeMap<(ParticipantId, SourceKind), u64> = BTreeMap::new();
        for scene in self.views.scenes() {
            let streams = self.streams.streams.iter().filter(|spec| spec.key.view == scene.view);
            let best = streams.max_by_key(|spec| (spec.size.width, spec.fps));
            let shown = |size: Size| {
                let (size, fps) = best.map_or((Size::new(0, 0), 0), |best| {
                    let scaled = |pixels: u32| pixels * best.size.width / scene.canvas.width;
                    (Size::new(scaled(size.width), scaled(size.height)), best.fps)
                });
                deserved(size, fps)
            };
            for tile in scene.tiles.iter().filter(|tile| tile.source.is_some()) {
                let wanted = sources.entry((tile.participant, tile.kind)).or_default();
                *wanted = (*wanted).max(shown(tile.uncropped()));
            }
        }
        let mut wanted: BTreeMap<ParticipantId, u64> = BTreeMap::new();
        for ((participant, _), bits) in sources {
            *wanted.entry(participant).or_default() += bits;
        }
        let hidden = deserved(Size::new(0, 0), 0);
        for (participant, person) in self.people.iter_mut().filter(|(_, person)| person.sends_pictures()) {
            let wanted = wanted.get(participant).copied().unwrap_or(hidden) + SOUND;
            self.effects.extend(
                person.uplink_limit.update(self.now, wanted).map(|bits| Effect::LimitUplink(*participant, bits)),
            );
        }
        self.uplink_limits_due = self.people.values().filter_map(|person| person.uplink_limit.due()).min();
    }
}

impl Person {
    /// Whether it sends video.
    fn sends_pictures(&self) -> bool {
        self.connected && self.sources.iter().any(|source| source.kind.kind() == Kind::Video && source.is_usable())
    }

    /// Its tiles: a screen that has started, and its camera or avatar if it sends anything. One that only listens by the
    /// rules of the room has none.
    pub(super) fn cells(&self) -> impl Iterator<Item = SourceKind> + use<> {
        let screen = self.shown(SourceKind::Screen).map(|_| SourceKind::Screen);
        let camera = (!self.sources.is_empty() && !self.decided.listens).then_some(SourceKind::Camera);
        screen.into_iter().chain(camera)
    }

    /// The source of a kind, if it has started and is neither muted nor isolated.
    pub(super) fn shown(&self, kind: SourceKind) -> Option<crate::id::SourceId> {
        let muted = match kind {
            SourceKind::Camera => self.is_dark(),
            SourceKind::Screen => self.decided.no_screen,
            SourceKind::Microphone => false,
        };
        let source = self.sources.iter().find(|source| source.kind == kind && source.is_usable());
        source.filter(|_| !muted).map(|source| source.id)
    }

    pub(super) fn is_silent(&self) -> bool {
        self.is_muted() || !self.sources.iter().any(|source| source.kind == SourceKind::Microphone)
    }
}

/// Whether the largest tile of a scene is a shared screen.
fn is_mainly_screen(scene: &Scene) -> bool {
    let largest = scene.tiles.iter().max_by_key(|tile| tile.rect.width * tile.rect.height);
    largest.is_some_and(|tile| tile.kind == SourceKind::Screen)
}

/// The largest even size within `tier` with the aspect ratio of the canvas, and no more pixels than the canvas.
fn fitting(tier: Size, canvas: Size) -> Size {
    let scale =
        (f64::from(tier.width) / f64::from(canvas.width)).min(f64::from(tier.height) / f64::from(canvas.height));
    let even = |pixels: u32| ((f64::from(pixels) * scale.min(1.0) / 2.0).round() as u32).max(1) * 2;
    Size::new(even(canvas.width), even(canvas.height))
}
