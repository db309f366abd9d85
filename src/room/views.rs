//! The views of a room: what each shows, and which one each participant receives.
//!
//! Owns: [`Views`], with the named views, the views of single participants and the tiles of all of them. Does not know:
//! pixels, encoders, subscribers. In: requests, and the state of the room after each input. Out: scenes and the event
//! `layout` where they differ, and the view of each participant.
//!
//! 1. The view `program` always exists. Other named views exist until they are deleted; their receivers get `program`
//!    then.
//! 2. A participant that asks for a view of its own, or for one without itself, gets a view whose name is derived from
//!    its contents, so that participants with equal views share one. It exists while a participant receives it. It has
//!    the overlays of `program`, or of the named view from which the participant is hidden.
//! 3. A view from which its last participant has switched is composed until its streams have ended: each subscriber
//!    switches at a keyframe.
//! 4. The number of views is bounded, that of own views also by the CPU time of the mixer. A participant for whose own
//!    view there is no room receives `program`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::document::{Event, MoreDocument, TileDocument, ViewDocument, ViewSettingsDocument};
use super::view_budget::ViewBudget;
use super::view_request::{
    Hidden, OWN, SelfView, VIEWS_MAX, ViewChoice, ViewError, ViewPatch, ViewRequest, ViewSettings, Wanted,
};
use super::{Effect, Order, Person, Room, name};
use crate::id::{ParticipantId, ViewName};
use crate::layout::{Arranger, Attendance, Background, CellName, Key, Layout, LayoutKind, Placed, Scene, Style, Tile};
use crate::media::{Size, SourceKind};
use crate::time::Timestamp;

/// A view that is composed.
#[derive(Debug)]
struct Composition {
    settings: ViewSettings,
    arranger: Arranger,
    /// What the layout has chosen for the scene.
    drawn: LayoutKind,
    scene: Scene,
    /// It is in documents and events; false for one that only remains until its streams have ended.
    listed: bool,
    /// The document in the latest event `layout`.
    announced: Option<ViewDocument>,
    /// The mixer has an order of it, or gets one when it starts.
    ordered: bool,
}

/// The view that a participant receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    /// Its name.
    pub(super) view: ViewName,
    /// There was no room for its own view.
    pub(super) fallback: bool,
}

impl Default for Received {
    fn default() -> Self {
        Self { view: ViewName::program(), fallback: false }
    }
}

/// All views of a room.
#[derive(Debug)]
pub(super) struct Views {
    named: BTreeMap<ViewName, ViewSettings>,
    compositions: BTreeMap<ViewName, Composition>,
    budget: ViewBudget,
}

impl Views {
    /// The view `program`.
    pub(super) fn new(layout: Layout, canvas: Size, fps: u32) -> Self {
        let overlays_of = ViewName::program();
        let settings = ViewSettings { layout, canvas, fps, show: None, hide: Vec::new(), overlays_of };
        let mut views = Self { named: BTreeMap::new(), compositions: BTreeMap::new(), budget: ViewBudget::default() };
        let mut program = Composition::new(&ViewName::program(), &settings, None);
        (program.announced, program.ordered) = (Some(program.document()), true);
        views.compositions.insert(ViewName::program(), program);
        views.named.insert(ViewName::program(), settings);
        views
    }

    /// The settings of `program`.
    pub(super) fn program(&self) -> &ViewSettings {
        &self.named[&ViewName::program()]
    }

    pub(super) fn set_program_layout(&mut self, layout: Layout) {
        self.named.entry(ViewName::program()).and_modify(|settings| settings.layout = layout);
    }

    /// The scenes of all views that are composed.
    pub(super) fn scenes(&self) -> impl Iterator<Item = &Scene> {
        self.compositions.values().map(|composition| &composition.scene)
    }

    /// The views that are composed, each with the named view whose overlays it shows.
    pub(super) fn overlaid(&self) -> impl Iterator<Item = (&ViewName, &ViewName)> {
        self.compositions.iter().map(|(view, composition)| (view, &composition.settings.overlays_of))
    }

    pub(super) fn scene(&self, view: &ViewName) -> Option<&Scene> {
        self.compositions.get(view).map(|composition| &composition.scene)
    }

    /// Whether two views have the same contents.
    #[cfg(test)]
    pub(super) fn are_equal(&self, one: &ViewName, other: &ViewName) -> bool {
        self.compositions[one].settings == self.compositions[other].settings
    }

    /// The documents of the listed views; `program` first.
    pub(super) fn documents(&self) -> Vec<ViewDocument> {
        let program = ViewName::program();
        let mut listed: Vec<_> = self.compositions.values().filter(|composition| composition.listed).collect();
        listed.sort_by_key(|composition| composition.scene.view != program);
        listed.into_iter().map(Composition::document).collect()
    }

    /// The document of a named view with its settings.
    fn settings(&self, view: &ViewName) -> Option<ViewSettingsDocument> {
        let (settings, composition) = (self.named.get(view)?, self.compositions.get(view)?);
        let ViewSettings { layout, fps, show, hide, .. } = settings.clone();
        Some(ViewSettingsDocument { view: composition.document(), layout, fps, show, hide, filters: Vec::new() })
    }

    fn unknown(&self, view: &ViewName) -> ViewError {
        let known: Vec<String> = self.named.keys().map(|name| format!("`{name}`")).collect();
        ViewError::Unknown(view.clone(), known.join(", "))
    }

    /// Checks a change of what a participant receives.
    fn check(&self, patch: &ViewPatch) -> Result<(), ViewError> {
        let room = self.program().canvas;
        match patch.named() {
            Some(name) => {
                if !self.named.contains_key(name) {
                    return Err(self.unknown(name));
                }
                if patch.sets_own() {
                    return Err(ViewError::NotOwn);
                }
            }
            None => {
                let larger = |canvas: Size| canvas.width * canvas.height > room.width * room.height;
                if patch.canvas.flatten().is_some_and(larger) {
                    return Err(ViewError::CanvasTooLarge(room));
                }
            }
        }
        Ok(())
    }

    /// The view of a participant: the name, and the contents unless it is a named view. `cells` are those of all
    /// participants.
    fn resolve(&self, id: ParticipantId, choice: &ViewChoice, cells: &[Key]) -> (ViewName, Option<ViewSettings>) {
        let has_tile = cells.iter().any(|(participant, _)| *participant == id);
        let hides = |settings: &ViewSettings| {
            has_tile && (choice.self_view == SelfView::Hidden || settings.hide.contains(&Hidden::Receiver))
        };
        let mut settings = match &choice.view {
            Wanted::Named(name) => {
                let known = self.named.get_key_value(name).or_else(|| self.named.get_key_value(&ViewName::program()));
                let (name, settings) = known.expect("`program` always exists");
                if !hides(settings) {
                    return (name.clone(), None);
                }
                settings.clone()
            }
            Wanted::Own { layout, canvas } => {
                let program = self.program();
                let canvas = canvas.unwrap_or(program.canvas);
                let mut own = match layout.clone() {
                    Some(layout) => ViewSettings { layout, canvas, show: None, hide: Vec::new(), ..program.clone() },
                    None => ViewSettings { layout: on_canvas(program, canvas), canvas, ..program.clone() },
                };
                if !hides(&own)
                    && let Some(layout) = for_two(&own.layout, id, cells)
                {
                    own.layout = layout;
                }
                own
            }
        };
        if hides(&settings) {
            settings.hide.push(Hidden::Participant(id));
        }
        settings.hide.retain(|hidden| *hidden != Hidden::Receiver);
        settings.hide.sort_unstable();
        settings.hide.dedup();
        let equal = |(_, known): &(&ViewName, &ViewSettings)| **known == settings;
        let program = self.named.get_key_value(&ViewName::program()).filter(equal);
        match program.or_else(|| self.named.iter().find(equal)) {
            Some((name, _)) => (name.clone(), None),
            None => (own_name(&settings), Some(settings)),
        }
    }
}

impl Composition {
    /// Without tiles. The order of tiles and the history of speakers are those of another view, if there is one.
    fn new(view: &ViewName, settings: &ViewSettings, like: Option<&Self>) -> Self {
        let mut arranger = like.map(|like| like.arranger.clone()).unwrap_or_default();
        let ViewSettings { layout, canvas, fps, .. } = settings;
        let drawn = arranger.arrange(layout, *canvas, &Attendance::default()).kind;
        let arranger = like.map(|like| like.arranger.clone()).unwrap_or_default();
        let (view, canvas, fps, style) = (view.clone(), *canvas, *fps, Style::default());
        let scene = Scene { view, canvas, fps, tiles: Vec::new(), more: None, style };
        Self { settings: settings.clone(), arranger, drawn, scene, listed: true, announced: None, ordered: false }
    }

    fn document(&self) -> ViewDocument {
        let tiles = self.scene.tiles.iter().map(|tile| TileDocument {
            participant: tile.participant,
            source: tile.kind,
            x: tile.rect.x,
            y: tile.rect.y,
            width: tile.rect.width,
            height: tile.rect.height,
            fit: tile.fit,
        });
        let Scene { view, canvas, .. } = &self.scene;
        ViewDocument {
            view: view.clone(),
            kind: self.drawn,
            canvas: *canvas,
            tiles: tiles.collect(),
            more: self.scene.more.map(MoreDocument::from),
        }
    }
}

/// The layout of a view on another canvas. The tiles of the kind `custom` are placed for canvases of one orientation.
fn on_canvas(view: &ViewSettings, canvas: Size) -> Layout {
    let is_portrait = |canvas: Size| canvas.height > canvas.width;
    if view.layout.kind == LayoutKind::Custom && is_portrait(canvas) != is_portrait(view.canvas) {
        return Layout::default();
    }
    view.layout.clone()
}

/// With two cameras, the kind `auto` of a participant's own view shows the other one large.
fn for_two(layout: &Layout, id: ParticipantId, cells: &[Key]) -> Option<Layout> {
    let [(one, SourceKind::Camera), (two, SourceKind::Camera)] = *cells else { return None };
    let other = if one == id { two } else { one };
    if layout.kind != LayoutKind::Auto || !layout.pinned.is_empty() || (one != id && two != id) {
        return None;
    }
    let pinned = vec![CellName { participant: other, kind: SourceKind::Camera }];
    Some(Layout { kind: LayoutKind::PictureInPicture, pinned, ..layout.clone() })
}

/// The name of a participant's own view: equal settings have equal names.
fn own_name(settings: &ViewSettings) -> ViewName {
    let text = serde_json::to_string(settings).expect("settings are plain data");
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{OWN}-{:016x}", hasher.finish()).parse().expect("letters, digits and a hyphen")
}

impl Room {
    /// The document of a named view.
    ///
    /// # Errors
    /// [`ViewError::Unknown`].
    pub fn view(&self, view: &ViewName) -> Result<ViewSettingsDocument, ViewError> {
        let mut document = self.views.settings(view).ok_or_else(|| self.views.unknown(view))?;
        document.filters = self.filters_of_view(view);
        Ok(document)
    }

    /// Creates or replaces a view. Returns whether it is new.
    ///
    /// # Errors
    /// [`ViewError::Reserved`], [`ViewError::TooMany`], [`ViewError::InUse`], [`ViewError::Filter`].
    pub fn put_view(&mut self, now: Timestamp, view: &ViewName, request: ViewRequest) -> Result<bool, ViewError> {
        self.now = now;
        if view.as_str().starts_with(OWN) {
            return Err(ViewError::Reserved(view.clone()));
        }
        let ViewRequest { layout, canvas, fps, show, hide, filters } = request;
        self.check_view_filters(&filters)?;
        let settings = ViewSettings {
            layout: layout.unwrap_or_default(),
            canvas: canvas.unwrap_or(self.settings.canvas),
            fps: fps.unwrap_or(self.settings.fps),
            show,
            hide,
            overlays_of: view.clone(),
        };
        let old = self.views.named.get(view);
        if old.is_none() && self.views.named.len() >= VIEWS_MAX {
            return Err(ViewError::TooMany);
        }
        let resized = old.is_some_and(|old| (old.canvas, old.fps) != (settings.canvas, settings.fps));
        if resized && self.outputs.keys().any(|key| key.view == *view) {
            return Err(ViewError::InUse(view.clone()));
        }
        let is_new = self.views.named.insert(view.clone(), settings).is_none();
        self.set_view_filters(view, &filters);
        self.refresh();
        self.emit(|room| Event::Room(Box::new(room.document())));
        Ok(is_new)
    }

    /// Deletes a view; its receivers get `program`.
    ///
    /// # Errors
    /// [`ViewError::Unknown`], [`ViewError::Program`], [`ViewError::InUse`].
    pub fn delete_view(&mut self, now: Timestamp, view: &ViewName) -> Result<(), ViewError> {
        self.now = now;
        if !self.views.named.contains_key(view) {
            return Err(self.views.unknown(view));
        }
        if *view == ViewName::program() {
            return Err(ViewError::Program);
        }
        if self.outputs.keys().any(|key| key.view == *view) {
            return Err(ViewError::InUse(view.clone()));
        }
        self.views.named.remove(view);
        self.remove_overlays_of(view);
        self.set_view_filters(view, &[]);
        for person in self.people.values_mut().filter(|person| person.view.view == Wanted::Named(view.clone())) {
            person.view.view = Wanted::Named(ViewName::program());
        }
        self.refresh();
        self.emit(|room| Event::Room(Box::new(room.document())));
        Ok(())
    }

    /// Checks a change of what a participant receives.
    ///
    /// # Errors
    /// [`ViewError::Unknown`], [`ViewError::NotOwn`], [`ViewError::CanvasTooLarge`].
    pub fn check_view(&self, patch: &ViewPatch) -> Result<(), ViewError> {
        self.views.check(patch)
    }

    /// A recording or broadcast is to take this view.
    pub(super) fn require_view(&self, view: &ViewName) -> Result<(), ViewError> {
        if self.views.named.contains_key(view) { Ok(()) } else { Err(self.views.unknown(view)) }
    }

    /// Of `ticks` video ticks since the last report, `late` were late or skipped.
    pub(super) fn video_load(&mut self, ticks: u64, late: u64) {
        let Views { named, compositions, budget } = &mut self.views;
        let used = compositions.iter().filter(|(view, shown)| shown.listed && !named.contains_key(*view)).count();
        if budget.report(self.now, ticks, late, used) {
            self.refresh();
        }
    }

    /// Derives the view of every participant, and the own views that exist. Returns the participants that receive
    /// another view than before.
    pub(super) fn assign_views(&mut self) -> Vec<ParticipantId> {
        let (cells, allowed) = (self.cells(), self.views.budget.allowed());
        let mut own: BTreeMap<ViewName, ViewSettings> = BTreeMap::new();
        let mut changed = Vec::new();
        for (id, person) in self.people.iter_mut().filter(|(_, person)| person.connected) {
            let mut received = Received::default();
            if person.receives_video.is_some() {
                let (view, settings) = self.views.resolve(*id, &person.view, &cells);
                match settings {
                    Some(_) if own.len() >= allowed && !own.contains_key(&view) => received.fallback = true,
                    settings => {
                        own.extend(settings.map(|settings| (view.clone(), settings)));
                        received.view = view;
                    }
                }
            }
            if person.received != received {
                person.received = received;
                changed.push(*id);
            }
        }
        for composition in self.views.compositions.values_mut() {
            composition.listed = false;
        }
        let Views { named, compositions, .. } = &mut self.views;
        for (view, settings) in named.iter().chain(&own) {
            match compositions.get_mut(view) {
                Some(known) => {
                    known.listed = true;
                    if known.settings != *settings {
                        known.settings.clone_from(settings);
                    }
                }
                None => {
                    let new = Composition::new(view, settings, compositions.get(&ViewName::program()));
                    compositions.insert(view.clone(), new);
                }
            }
        }
        changed
    }

    /// Derives the view of every participant and the tiles of every view, and emits what differs.
    pub(super) fn refresh_views(&mut self) {
        for participant in self.assign_views() {
            self.announce(participant);
        }
        let in_demand: BTreeSet<ViewName> =
            self.subscribers.keys().cloned().chain(self.outputs.keys()).map(|key| key.view).collect();
        let names: Vec<ViewName> = self.views.compositions.keys().cloned().collect();
        for view in names {
            if self.views.compositions[&view].listed || in_demand.contains(&view) {
                self.refresh_view(&view);
            } else {
                self.views.compositions.remove(&view);
                self.effects.push_back(Effect::Order(Order::SceneGone(view)));
            }
        }
        self.refresh_overlays();
    }

    fn refresh_view(&mut self, view: &ViewName) {
        let Some(mut composition) = self.views.compositions.remove(view) else { return };
        let (drawn, scene) = self.derive_scene(view, &composition.settings, &mut composition.arranger);
        if (drawn, &scene) != (composition.drawn, &composition.scene) || !composition.ordered {
            (composition.drawn, composition.scene, composition.ordered) = (drawn, scene, true);
            self.effects.push_back(Effect::Order(Order::Scene(composition.scene.clone())));
        }
        let document = composition.document();
        if composition.listed && composition.announced.as_ref() != Some(&document) {
            composition.announced = Some(document.clone());
            self.emit(|_| Event::Layout(document));
        }
        self.views.compositions.insert(view.clone(), composition);
    }

    /// The cells of all participants.
    fn cells(&self) -> Vec<Key> {
        let here = self.people.iter().filter(|(_, person)| person.connected);
        here.flat_map(|(id, person)| person.cells().map(|kind| (*id, kind))).collect()
    }

    fn derive_scene(&self, view: &ViewName, settings: &ViewSettings, arranger: &mut Arranger) -> (LayoutKind, Scene) {
        let ViewSettings { layout, canvas, fps, .. } = settings;
        let shows = |(id, kind): &Key| self.people.get(id).is_some_and(|person| settings.shows(*id, *kind, person));
        let cells: Vec<Key> = self.cells().into_iter().filter(shows).collect();
        let attendance = Attendance { cells: &cells, speaker: self.speaker.current() };
        let layout = &Layout { gap: if layout.gap.is_some() { layout.gap } else { self.theme.gap }, ..layout.clone() };
        let arrangement = arranger.arrange(layout, *canvas, &attendance);
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
                avatar: person.avatar.clone().filter(|image| kind == SourceKind::Camera && self.images.contains(image)),
                speaking: kind == SourceKind::Camera && self.speaker.speaking().contains(&participant),
                muted: kind == SourceKind::Camera && person.is_silent(),
                poor_connection: kind == SourceKind::Camera && person.is_poorly_connected(),
                hand_raised: kind == SourceKind::Camera && person.signals.hand_raised_at().is_some(),
                reaction: person
                    .signals
                    .reaction()
                    .filter(|_| kind == SourceKind::Camera)
                    .map(|emoji| emoji.as_str().to_owned()),
            })
        };
        let tiles = arrangement.placed.into_iter().filter_map(tile).collect();
        let more = arrangement.more;
        let mut style = Style::of(layout, &self.theme);
        if style.background.image().is_some_and(|image| !self.images.contains(image)) {
            style.background = Background::USUAL;
        }
        (arrangement.kind, Scene { view: view.clone(), canvas: *canvas, fps: *fps, tiles, more, style })
    }
}

impl ViewSettings {
    /// Whether the view shows this cell.
    fn shows(&self, id: ParticipantId, kind: SourceKind, person: &Person) -> bool {
        let is_listed = |show: &Vec<CellName>| show.contains(&CellName { participant: id, kind });
        let no_picture = || kind == SourceKind::Camera && person.shown(SourceKind::Camera).is_none();
        let hides = |hidden: &Hidden| match hidden {
            Hidden::Receiver => false,
            Hidden::AudioOnly => no_picture(),
            Hidden::Listeners => no_picture() && person.is_silent(),
            Hidden::Participant(hidden) => *hidden == id,
        };
        self.show.as_ref().is_none_or(is_listed) && !self.hide.iter().any(hides)
    }
}
