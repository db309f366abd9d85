//! A participant and its sources.
//!
//! Owns: [`Person`] and [`Source`]. Does not know: other participants, views.

use super::filters::Applied;
use super::hands::Signals;
use super::moderation::{Decided, Identity};
use super::name;
use super::quarantine::Quarantine;
use super::updates::Updates;
use super::view_request::ViewChoice;
use super::views::Received;
use crate::id::{ImageName, ParticipantId, SourceId};
use crate::media::{Codec, Size, SoundTaken, SourceKind, Tier};
use crate::room::document::{ParticipantDocument, ReceivesDocument, Role, SourceDocument, TierChoice};
use crate::tier::Limit;
use crate::tier::uplink::UplinkLimit;

/// A participant.
#[derive(Debug)]
pub(super) struct Person {
    /// The name that it has given; may be empty.
    pub(super) name: String,
    pub(super) role: Role,
    /// It is a program, which alone does not keep a room alive.
    pub(super) bot: bool,
    /// The same person has the same; None for an input.
    pub(super) identity: Option<Identity>,
    /// It is connected, and was let in.
    pub(super) connected: bool,
    /// It is in the lobby, or will be when it has connected.
    pub(super) waits: bool,
    /// It is in the lobby and connected.
    pub(super) at_door: bool,
    pub(super) sources: Vec<Source>,
    pub(super) receives_audio: Option<SoundTaken>,
    pub(super) receives_video: Option<Codec>,
    /// By the participant itself.
    pub(super) audio_muted: bool,
    /// By the participant itself.
    pub(super) video_muted: bool,
    /// By moderators and the rules of the room.
    pub(super) decided: Decided,
    pub(super) gain_db: f32,
    pub(super) tier: TierChoice,
    /// The tier that its subscriber has selected while `tier` is `auto`, and why it gets no better one.
    pub(super) selected: (Tier, Option<Limit>),
    /// The image that its tile shows instead of the initials.
    pub(super) avatar: Option<ImageName>,
    /// The view that it asks for.
    pub(super) view: ViewChoice,
    /// The view that it receives.
    pub(super) received: Received,
    /// The bitrate limit of its uplink.
    pub(super) uplink_limit: UplinkLimit,
    /// The events that requests about it cause.
    pub(super) updates: Updates,
    /// Its hand and its reaction.
    pub(super) signals: Signals,
    /// It receives directly from the other participant, and nothing from the mixer.
    pub(super) direct: bool,
    /// The filters of its sources, in the order in which they are applied.
    pub(super) filters: Vec<Applied>,
}

/// A source of a participant.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) id: SourceId,
    pub(super) kind: SourceKind,
    /// None until the first packet: the source has not started.
    pub(super) codec: Option<Codec>,
    pub(super) size: Option<Size>,
    /// RID of the simulcast encoding that is received.
    pub(super) encoding: Option<String>,
    /// The size at which it is shown at most, as its client was told; None before.
    pub(super) wanted: Option<Size>,
    /// Whether it is isolated, and what counts against it.
    pub(super) quarantine: Quarantine,
}

impl Source {
    /// Whether it has started, and is not isolated.
    pub(super) const fn is_usable(&self) -> bool {
        self.codec.is_some() && self.quarantine.reason().is_none()
    }

    fn document(&self) -> SourceDocument {
        SourceDocument {
            kind: self.kind,
            codec: self.codec,
            size: self.size,
            encoding: self.encoding.clone(),
            wanted: self.wanted,
            quarantined: self.quarantine.reason(),
        }
    }
}

impl Person {
    /// The participant's document.
    pub(super) fn document(&self, id: ParticipantId) -> ParticipantDocument {
        ParticipantDocument {
            id,
            name: self.name.clone(),
            display_name: self.shown_name(id),
            initials: name::initials(&self.shown_name(id)),
            avatar: self.avatar.clone(),
            role: self.role,
            state: self.presence(),
            bot: self.bot,
            audio_muted: self.audio_muted,
            video_muted: self.video_muted,
            muted_by: self.decided.muted_by,
            video_stopped_by: self.decided.video_stopped_by,
            speaker_allowed: self.decided.speaker_allowed,
            listens: self.decided.listens,
            hand_raised_at: self.signals.hand_raised_at(),
            gain_db: self.gain_db,
            tier: self.tier,
            view: self.view.named().unwrap_or(&self.received.view).clone(),
            filters: self.filters.iter().map(Applied::document).collect(),
            sends: self.sources.iter().map(Source::document).collect(),
            receives: ReceivesDocument {
                audio: self.receives_audio.is_some(),
                video: self.receives_video,
                view: self.received.view.clone(),
                view_fallback: self.received.fallback,
                tier: self.tier(),
                limit: self.selected.1.filter(|_| self.adapts()),
            },
        }
    }

    /// The name that is shown for it.
    pub(super) fn shown_name(&self, id: ParticipantId) -> String {
        name::shown(&self.name, id)
    }

    /// The tier that it gets.
    pub(super) fn tier(&self) -> Tier {
        match self.tier {
            TierChoice::Auto => self.selected.0,
            TierChoice::Pinned(tier) => tier,
        }
    }

    /// Whether its link carries no more than a small picture.
    pub(super) fn is_poorly_connected(&self) -> bool {
        let (tier, limit) = self.selected;
        let is_small = matches!(tier, Tier::Low | Tier::Slides | Tier::Audio);
        self.adapts() && is_small && matches!(limit, Some(Limit::Loss | Limit::Delay))
    }

    /// Whether its tier follows its link.
    pub(super) fn adapts(&self) -> bool {
        self.connected && self.tier == TierChoice::Auto && self.receives_video.is_some()
    }

    /// Tier and limit of a participant whose link is not known yet.
    pub(super) const UNKNOWN_LINK: (Tier, Option<Limit>) = (Tier::High, None);
}
