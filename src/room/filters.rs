//! The filters of participants and views.
//!
//! Owns: which filters a participant or view has, in which order, and the orders to the mixer that follow. Does not
//! know: what a filter does ([`crate::filter`] has the plain data); who may apply one. In: requests, and the mixer's
//! reports of load and of removed filters. Out: documents, events, and [`Order::Filters`] and [`Order::ViewFilters`]
//! where the filters of a source or view differ.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::document::Event;
use super::{Effect, Order, Room};
use crate::filter::{FILTERS_MAX, Filter, FilterRequest, FilterSpec, Removal, Value};
use crate::id::{ParticipantId, SourceId, ViewName};
use crate::media::{Kind, SourceKind};
use crate::overlay::ImageName;

/// Why filters are refused: a text that names what is possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// A filter of a participant or view, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilterDocument {
    /// The name of the filter.
    pub name: String,
    /// The source that is filtered; absent for a filter of a view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceKind>,
    /// CPU time of a frame in milliseconds; absent before it was measured. Its changes are no events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f64>,
    /// The values of its parameters.
    #[serde(flatten)]
    pub values: BTreeMap<String, Value>,
}

/// A filter of a participant or view.
#[derive(Debug)]
pub(super) struct Applied {
    serial: u32,
    filter: Filter,
    /// CPU time of a frame.
    cpu: Option<Duration>,
}

/// The state of filters in a room.
#[derive(Debug, Default)]
pub(super) struct Filters {
    last_serial: u32,
    /// What the mixer has.
    ordered: BTreeMap<SourceId, Vec<FilterSpec>>,
    /// The filters of views that have any.
    views: BTreeMap<ViewName, Vec<Applied>>,
}

impl Filters {
    /// A source has ended; the mixer forgets its filters with it.
    pub(super) fn forget(&mut self, source: SourceId) {
        self.ordered.remove(&source);
    }
}

impl Applied {
    pub(super) fn document(&self) -> FilterDocument {
        let Filter { source, values, .. } = &self.filter;
        FilterDocument {
            name: self.filter.name().to_owned(),
            source: Some(*source),
            cpu_ms: self.cpu.map(|cpu| (cpu.as_secs_f64() * 1e5).round() / 100.0),
            values: values.clone(),
        }
    }
}

impl Room {
    /// Checks a list of filters.
    ///
    /// # Errors
    /// A text that names the filter, and what is possible.
    pub fn check_filters(&self, requests: &[FilterRequest]) -> Result<(), FilterError> {
        self.checked_filters(requests).map(drop)
    }

    fn checked_filters(&self, requests: &[FilterRequest]) -> Result<Vec<Filter>, FilterError> {
        if requests.len() > FILTERS_MAX {
            return Err(FilterError(format!("a participant has at most {FILTERS_MAX} filters")));
        }
        let check = |request| {
            let filter = self.settings.filters.check(request)?;
            match filter.image() {
                Some(image) if !self.images.has(image) => Err(format!(
                    "the filter `{}`: there is no image `{image}` in this room: upload it with \
                     PUT /v1/rooms/{{room}}/images/{image}",
                    filter.name()
                )),
                _ => Ok(filter),
            }
        };
        requests.iter().map(check).collect::<Result<_, String>>().map_err(FilterError)
    }

    /// Replaces the filters of a participant; does nothing if they are invalid. A filter that remains as it is goes on.
    pub(super) fn set_filters(&mut self, participant: ParticipantId, requests: &[FilterRequest]) {
        let Ok(filters) = self.checked_filters(requests) else { return };
        let Some(person) = self.people.get_mut(&participant) else { return };
        let before = std::mem::take(&mut person.filters);
        person.filters = apply(filters, before, &mut self.filters.last_serial);
        self.refresh_filters();
    }

    /// Checks the filters of a view.
    pub(super) fn check_view_filters(&self, requests: &[FilterRequest]) -> Result<(), FilterError> {
        let filters = self.checked_filters(requests)?;
        let sound = filters.iter().find(|filter| filter.source.kind() != Kind::Video);
        if let Some(filter) = sound {
            return Err(FilterError(format!(
                "the filter `{}` is for audio: a view has filters of video",
                filter.name()
            )));
        }
        if requests.iter().any(|request| request.source.is_some()) {
            return Err(FilterError("a filter of a view has no source: leave `source` out".into()));
        }
        Ok(())
    }

    /// Replaces the filters of a view; does nothing if they are invalid.
    pub(super) fn set_view_filters(&mut self, view: &ViewName, requests: &[FilterRequest]) {
        let Ok(filters) = self.checked_filters(requests) else { return };
        let before = self.filters.views.remove(view).unwrap_or_default();
        let serials = |list: &[Applied]| list.iter().map(|applied| applied.serial).collect::<Vec<_>>();
        let serials_before = serials(&before);
        let after = apply(filters, before, &mut self.filters.last_serial);
        let has_changed = serials(&after) != serials_before;
        if !after.is_empty() {
            self.filters.views.insert(view.clone(), after);
        }
        self.refresh_overlays();
        if has_changed {
            self.order_view_filters(view);
        }
    }

    fn order_view_filters(&mut self, view: &ViewName) {
        let filters = self.filters.views.get(view).into_iter().flatten();
        let specs = filters.map(|applied| applied.filter.spec(applied.serial)).collect();
        self.effects.push_back(Effect::Order(Order::ViewFilters(view.clone(), specs)));
    }

    /// The filters of a view, as the API shows them.
    pub(super) fn filters_of_view(&self, view: &ViewName) -> Vec<FilterDocument> {
        let filters = self.filters.views.get(view).into_iter().flatten();
        filters.map(|applied| FilterDocument { source: None, ..applied.document() }).collect()
    }

    /// Orders what the mixer does not filter yet.
    pub(super) fn refresh_filters(&mut self) {
        // Images come before the filters that show them.
        self.refresh_overlays();
        for (source, specs) in self.wanted_filters() {
            let before = self.filters.ordered.insert(source, specs.clone()).unwrap_or_default();
            if before != specs {
                self.effects.push_back(Effect::Order(Order::Filters(source, specs)));
            }
        }
    }

    /// The filters of every source.
    fn wanted_filters(&self) -> BTreeMap<SourceId, Vec<FilterSpec>> {
        let people = self.people.values();
        let sources = people.flat_map(|person| person.sources.iter().map(move |source| (person, source)));
        let specs = sources.map(|(person, source)| {
            let filters = person.filters.iter().filter(|applied| applied.filter.source == source.kind);
            (source.id, filters.map(|applied| applied.filter.spec(applied.serial)).collect())
        });
        specs.collect()
    }

    /// Repeats the orders for a new mixer.
    pub(super) fn replay_filters(&mut self) {
        for (source, specs) in self.filters.ordered.iter().filter(|(_, specs)| !specs.is_empty()) {
            self.effects.push_back(Effect::Order(Order::Filters(*source, specs.clone())));
        }
        let views: Vec<ViewName> = self.filters.views.keys().cloned().collect();
        views.iter().for_each(|view| self.order_view_filters(view));
    }

    /// The images that filters show.
    pub(super) fn images_of_filters(&self) -> BTreeSet<ImageName> {
        let applied = self.people.values().flat_map(|person| &person.filters);
        let applied = applied.chain(self.filters.views.values().flatten());
        applied.filter_map(|applied| applied.filter.image()?.parse().ok()).collect()
    }

    /// An image is not there any more: filters show black instead.
    pub(super) fn remove_image_of_filters(&mut self, image: &ImageName) {
        let named = |applied: &Applied| applied.filter.image()?.parse::<ImageName>().ok();
        let shows = |applied: &&mut Applied| named(applied).as_ref() == Some(image);
        let mut views = Vec::new();
        for (view, filters) in &mut self.filters.views {
            for applied in filters.iter_mut().filter(shows) {
                applied.filter.remove_image();
                views.push(view.clone());
            }
        }
        let mut changed = Vec::new();
        for (id, person) in &mut self.people {
            for applied in person.filters.iter_mut().filter(shows) {
                applied.filter.remove_image();
                changed.push(*id);
            }
        }
        self.refresh_filters();
        views.dedup();
        views.iter().for_each(|view| self.order_view_filters(view));
        changed.dedup();
        changed.into_iter().for_each(|id| self.announce(id));
    }

    /// The mixer has measured a filter.
    pub(super) fn filter_load(&mut self, serial: u32, cpu: Duration) {
        let of_people = self.people.values_mut().flat_map(|person| &mut person.filters);
        let mut applied = of_people.chain(self.filters.views.values_mut().flatten());
        if let Some(applied) = applied.find(|applied| applied.serial == serial) {
            applied.cpu = Some(cpu);
        }
    }

    /// The mixer has removed a filter.
    pub(super) fn filter_removed(&mut self, serial: u32, reason: Removal, detail: String) {
        let place = self
            .people
            .iter()
            .find_map(|(id, person)| Some((*id, person.filters.iter().position(|applied| applied.serial == serial)?)));
        let Some((participant, at)) = place else { return self.view_filter_removed(serial, reason, detail) };
        let Some(person) = self.people.get_mut(&participant) else { return };
        let Applied { filter, .. } = person.filters.remove(at);
        // The mixer has removed it already.
        for specs in self.filters.ordered.values_mut() {
            specs.retain(|spec| spec.serial != serial);
        }
        self.refresh_filters();
        let (name, source) = (filter.name().to_owned(), filter.source);
        let (participant, source) = (Some(participant), Some(source));
        self.emit(|_| Event::FilterRemoved { participant, view: None, name, source, reason, detail });
        participant.into_iter().for_each(|id| self.announce(id));
    }

    fn view_filter_removed(&mut self, serial: u32, reason: Removal, detail: String) {
        let place = self.filters.views.iter().find_map(|(view, filters)| {
            Some((view.clone(), filters.iter().position(|applied| applied.serial == serial)?))
        });
        let Some((view, at)) = place else { return };
        let Some(filters) = self.filters.views.get_mut(&view) else { return };
        let Applied { filter, .. } = filters.remove(at);
        if filters.is_empty() {
            self.filters.views.remove(&view);
        }
        self.refresh_overlays();
        let (name, view) = (filter.name().to_owned(), Some(view));
        self.emit(|_| Event::FilterRemoved { participant: None, view, name, source: None, reason, detail });
    }
}

/// The filters with serials; one that was there before keeps its own.
fn apply(filters: Vec<Filter>, mut before: Vec<Applied>, last_serial: &mut u32) -> Vec<Applied> {
    let serial = |filter: Filter| match before.iter().position(|applied| applied.filter == filter) {
        Some(at) => before.remove(at),
        None => {
            *last_serial += 1;
            Applied { serial: *last_serial, filter, cpu: None }
        }
    };
    filters.into_iter().map(serial).collect()
}
