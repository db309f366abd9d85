//! The size at which each source is shown at most, over all views and streams.
//!
//! Owns: its derivation from scenes and streams. Does not know: encodings, codecs, who selects by it. In: the room's
//! state; out: [`Effect::Want`] where a size differs from the one before.

use std::collections::BTreeMap;

use super::{Effect, Room};
use crate::id::ParticipantId;
use crate::layout::Scene;
use crate::media::{Kind, Size, SourceKind};
use crate::plan::StreamSet;

/// Wanted by recordings of the participants' own tracks: more than any camera sends.
const ORIGINAL: Size = Size::new(7_680, 4_320);

type Sizes = BTreeMap<(ParticipantId, SourceKind), Size>;

impl Room {
    /// Derives the sizes anew and emits what differs.
    pub(super) fn refresh_wanted(&mut self) {
        let takes_tracks = self.outputs.routes().iter().any(|route| route.sources);
        let mut sizes = Sizes::new();
        self.views.scenes().for_each(|scene| shown(scene, &self.streams, &mut sizes));
        for (id, person) in &mut self.people {
            for source in person.sources.iter_mut().filter(|source| source.kind.kind() == Kind::Video) {
                let shown = sizes.get(&(*id, source.kind)).copied().unwrap_or(Size::new(0, 0));
                let wanted = if takes_tracks { ORIGINAL } else { shown };
                if person.connected && source.wanted.replace(wanted) != Some(wanted) {
                    self.effects.push_back(Effect::Want(*id, source.kind, wanted));
                }
            }
        }
    }
}

/// Adds the tiles of a scene at the size that they have in its largest stream.
fn shown(scene: &Scene, streams: &StreamSet, sizes: &mut Sizes) {
    let streams = streams.streams.iter().filter(|spec| spec.key.view == scene.view);
    let Some(width) = streams.map(|spec| spec.size.width).max() else { return };
    for tile in &scene.tiles {
        let uncropped = tile.uncropped();
        let scaled = |pixels: u32| (pixels * width).div_ceil(scene.canvas.width.max(1));
        let size = Size::new(scaled(uncropped.width), scaled(uncropped.height));
        let largest = sizes.entry((tile.participant, tile.kind)).or_insert(size);
        *largest = Size::new(largest.width.max(size.width), largest.height.max(size.height));
    }
}
