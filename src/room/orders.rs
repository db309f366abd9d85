//! Scene, mix plan, streams, routes and uplink limits, derived from the participants after each input.
//!
//! Owns: their derivation. Does not know: when inputs come. In: the room's state; out: orders and routes where they
//! differ.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Order, Person, Room, Route, name};
use crate::id::{ParticipantId, ViewName};
use crate::layout::{Attendance, LayoutKind, ObjectFit, Placed, Scene, Tile};
use crate::media::{Kind, Size, SourceKind, StreamKey, Tier};
use crate::plan::{Listener, MixInput, MixPlan, SourceSpec, StreamSet, StreamSpec};
use crate::room::document::{Audience, Event, MoreDocument, TileDocument, ViewDocument};
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
        self.follow_direct();
        let (drawn, scene) = self.derive_scene();
        if (drawn, &scene) != (self.drawn, &self.scene) {
            let moved = view_document(drawn, &scene) != view_document(self.drawn, &self.scene);
            (self.drawn, self.scene) = (drawn, scene);
            self.effects.push_back(Effect::Order(Order::Scene(self.scene.clone())));
            if moved {
                self.emit(|room| Event::Layout(view_document(room.drawn, &room.scene)));
            }
        }
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
    }

    /// Repeats all orders for a new mixer.
    pub(super) fn replay(&mut self) {
        let sources: Vec<SourceSpec> = self.sources().collect();
        self.effects.extend(sources.into_iter().map(|spec| Effect::Order(Order::Source(spec))));
        self.effects.push_back(Effect::Order(Order::Scene(self.scene.clone())));
        self.effects.push_back(Effect::Order(Order::Mix(self.mix.clone())));
        self.effects.push_back(Effect::Order(Order::Streams(self.streams.clone())));
    }

    fn derive_scene(&mut self) -> (LayoutKind, Scene) {
        let cells: Vec<_> = self
            .people
            .iter()
            .filter(|(_, person)| person.connected)
            .flat_map(|(id, person)| person.cells().map(|kind| (*id, kind)))
            .collect();
        let attendance = Attendance { cells: &cells, speaker: self.speaker.current() };
        let layout = &self.settings.layout;
        let arrangement = self.arranger.arrange(layout, self.settings.canvas, &attendance);
        let tile = |Placed { key: (participant, kind), rect, fit }| {
            let person = self.people.get(&participant)?;
            let name = person.shown_name(participant);
            let initials = name::initials(&name);
            let label = match kind {
                _ if !layout.labels => String::new(),
                SourceKind::Screen => name::of_screen(&name),
                _ => name,
            };
            Some(Tile {
                participant,
                kind,
                source: person.shown(kind),
                rect,
                fit,
                label,
                initials,
                speaking: kind == SourceKind::Camera && self.speaker.speaking().contains(&participant),
                muted: kind == SourceKind::Camera && person.is_silent(),
            })
        };
        let scene = Scene {
            view: ViewName::program(),
            canvas: self.settings.canvas,
            fps: self.settings.fps,
            tiles: arrangement.placed.into_iter().filter_map(tile).collect(),
            more: arrangement.more,
        };
        (arrangement.kind, scene)
    }

    fn derive_mix(&self) -> MixPlan {
        let here = || self.people.iter().filter(|(_, person)| person.connected);
        MixPlan {
            sources: here()
                .filter(|(_, person)| !person.audio_muted)
                .flat_map(|(_, person)| person.sources.iter().map(|source| (source, person.gain_db)))
                .filter(|(source, _)| source.kind.kind() == Kind::Audio && source.codec.is_some())
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
            .map(|key| {
                let serial = *self.serials.entry(key.clone()).or_insert_with(|| {
                    self.next_serial += 1;
                    self.next_serial - 1
                });
                let Some(spec) = self.settings.ladder.spec(key.tier) else {
                    unreachable!("no stream is of the tier audio")
                };
                // The tier `high` has the size of the canvas; the ladder only gives its bitrate.
                let (size, fps) = match key.tier {
                    Tier::High => (self.settings.canvas, self.settings.fps),
                    _ => (fitting(spec.size, self.settings.canvas), spec.fps.min(self.settings.fps)),
                };
                let steady = taken_by_outputs.contains(&key);
                StreamSpec { serial, key, size, fps, bitrate_kbps: spec.payload_kbps(fps), steady }
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
                video: person.receives_video.filter(|_| !person.direct).map(|codec| (ViewName::program(), codec)),
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

    /// Limits senders to the bitrate for the size of their tiles in the best stream that is encoded.
    fn refresh_uplink_limits(&mut self) {
        let best = self.streams.streams.iter().max_by_key(|spec| (spec.size.width, spec.fps));
        let shown = |size: Size| {
            let (size, fps) = best.map_or((Size::new(0, 0), 0), |best| {
                let scaled = |pixels: u32| pixels * best.size.width / self.settings.canvas.width;
                (Size::new(scaled(size.width), scaled(size.height)), best.fps)
            });
            deserved(size, fps)
        };
        let mut wanted: BTreeMap<ParticipantId, u64> = BTreeMap::new();
        for tile in self.scene.tiles.iter().filter(|tile| tile.source.is_some()) {
            *wanted.entry(tile.participant).or_default() += shown(uncropped(tile));
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
        self.connected && self.sources.iter().any(|source| source.kind.kind() == Kind::Video && source.codec.is_some())
    }

    /// Its tiles: a screen that has started, and its camera or avatar if it sends anything.
    fn cells(&self) -> impl Iterator<Item = SourceKind> + use<> {
        let screen = self.shown(SourceKind::Screen).map(|_| SourceKind::Screen);
        let camera = (!self.sources.is_empty()).then_some(SourceKind::Camera);
        screen.into_iter().chain(camera)
    }

    /// The source of a kind, if it has started and is not muted.
    fn shown(&self, kind: SourceKind) -> Option<crate::id::SourceId> {
        let muted = kind == SourceKind::Camera && self.video_muted;
        let source = self.sources.iter().find(|source| source.kind == kind && source.codec.is_some());
        source.filter(|_| !muted).map(|source| source.id)
    }

    fn is_silent(&self) -> bool {
        self.audio_muted || !self.sources.iter().any(|source| source.kind == SourceKind::Microphone)
    }
}

/// The size of a camera of 16:9 that fills its tile, before it is cropped.
fn uncropped(tile: &Tile) -> Size {
    let Size { width, height } = tile.rect.size();
    match tile.fit {
        ObjectFit::Cover => Size::new(width.max(height * 16 / 9), height.max(width * 9 / 16)),
        ObjectFit::Auto | ObjectFit::Contain => Size::new(width, height),
    }
}

/// The largest even size within `tier` with the aspect ratio of the canvas, and no more pixels than the canvas.
fn fitting(tier: Size, canvas: Size) -> Size {
    let scale =
        (f64::from(tier.width) / f64::from(canvas.width)).min(f64::from(tier.height) / f64::from(canvas.height));
    let even = |pixels: u32| ((f64::from(pixels) * scale.min(1.0) / 2.0).round() as u32).max(1) * 2;
    Size::new(even(canvas.width), even(canvas.height))
}

/// The document of a view.
pub(super) fn view_document(kind: LayoutKind, scene: &Scene) -> ViewDocument {
    let tiles = scene.tiles.iter().map(|tile| TileDocument {
        participant: tile.participant,
        source: tile.kind,
        x: tile.rect.x,
        y: tile.rect.y,
        width: tile.rect.width,
        height: tile.rect.height,
        fit: tile.fit,
    });
    ViewDocument {
        view: scene.view.clone(),
        kind,
        canvas: scene.canvas,
        tiles: tiles.collect(),
        more: scene.more.map(MoreDocument::from),
    }
}
