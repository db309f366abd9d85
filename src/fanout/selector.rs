//! Which stream one subscriber gets: the view and codec that its room assigned, in the tier that its link carries.
//!
//! Owns: [`Selector`], with the [`Chooser`] of the tier. Does not know: serials, queues, packets. Time is an argument.

use std::time::Duration;

use crate::id::ViewName;
use crate::media::{Codec, StreamKey, Tier};
use crate::tier::{Chooser, Costs, Limit, Reception};
use crate::time::Timestamp;

/// The tier of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// The tier.
    pub tier: Tier,
    /// Why the link gets no better tier; None for the best tier and for a pinned one.
    pub limit: Option<Limit>,
}

/// Selects the stream of one subscriber.
#[derive(Debug)]
pub(super) struct Selector {
    costs: Costs,
    chooser: Chooser,
    video: Option<(ViewName, Codec)>,
    pinned: Option<Tier>,
}

impl Selector {
    /// Selects nothing until [`Selector::assign`].
    pub(super) fn new(costs: Costs, now: Timestamp) -> Self {
        Self { costs, chooser: Chooser::new(costs, now), video: None, pinned: None }
    }

    /// The room assigns this video, or none, in a pinned tier or in the one that the link carries. A change between
    /// pinned and not discards what is known of the link. Returns whether the selected stream differs.
    pub(super) fn assign(&mut self, video: Option<(ViewName, Codec)>, pinned: Option<Tier>, now: Timestamp) -> bool {
        let before = self.key();
        if video.is_some() && self.pinned != pinned {
            self.pinned = pinned;
            self.chooser = Chooser::new(self.costs, now);
        }
        self.video = video;
        self.key() != before
    }

    /// Takes in how packets arrive. When the link carries another tier, returns how long to send no video, so that the
    /// link's queue can drain.
    pub(super) fn report(&mut self, reception: &Reception, now: Timestamp) -> Option<Duration> {
        if self.video.is_none() || self.pinned.is_some() {
            return None;
        }
        self.chooser.report(now, reception).map(|choice| choice.pause)
    }

    /// The tier.
    pub(super) fn selection(&self) -> Selection {
        match self.pinned {
            Some(tier) => Selection { tier, limit: None },
            None => Selection { tier: self.chooser.tier(), limit: self.chooser.limit() },
        }
    }

    /// The selected stream; None without video.
    pub(super) fn key(&self) -> Option<StreamKey> {
        let tier = self.selection().tier;
        let (view, codec) = self.video.as_ref().filter(|_| tier != Tier::Audio)?;
        Some(StreamKey { view: view.clone(), codec: *codec, tier })
    }
}
