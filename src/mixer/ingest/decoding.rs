//! The decoder of one source.
//!
//! Owns: the decoder, which the [`Builder`] makes; the frames that wait for it; which pictures are stored. Does not
//! know: packets, keyframe requests. In: whole frames. Out: pictures, through the [`Stage`] of filters, in the
//! [`FrameSlot`].
//!
//! A source that is shown brings the frames since its last keyframe. They are decoded as fast as possible, and only the
//! last of their pictures are stored, so that a tile begins with the present and not in fast motion. Frames of a still
//! camera wait for those after them, see [`Batch`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Shared;
use super::batch::Batch;
use super::requests::RateLimit;
use crate::codec::{CodecError, Decoded, Entry, Raw, VideoDecoder, coded_colours};
use crate::id::SourceId;
use crate::jitter::VideoFrame;
use crate::link::FromMixer;
use crate::media::{Codec, Colours, Look, Size};
use crate::mixer::builder::Building;
use crate::mixer::compose::FrameSlot;
use crate::mixer::filter::{Frame, Stage, Target};
use crate::time::Timestamp;

/// Most frames that wait while a decoder is made, from a keyframe on: 0.5 s at 30 frames a second, and as many as a new
/// decoder takes at once.
pub(super) const PENDING_MAX: usize = 15;
/// Time after which a decoder with frames that wait is fed again.
const FEED_INTERVAL: Duration = Duration::from_millis(5);
/// Pictures of the frames since the keyframe that are stored: at least as many as a decoder may hold back to reorder
/// them.
const CAUGHT_UP: usize = 8;

/// Most changes of the size of decoded pictures within [`SIZE_CHANGES_WITHIN`], twice those of the headers. Frames that
/// refer to pictures or parameter sets of different sizes change it without a size in their headers, and each change
/// makes other scalers.
const SIZE_CHANGES_MAX: usize = 8;
/// See [`SIZE_CHANGES_MAX`].
const SIZE_CHANGES_WITHIN: Duration = Duration::from_secs(10);

/// Most frames of a gradual refresh that are not shown.
const REFRESH_MAX: u32 = 300;

/// Whose decoder it is.
pub(super) struct Owner {
    pub(super) id: SourceId,
    pub(super) codec: Codec,
    pub(super) slot: Arc<FrameSlot>,
    pub(super) filters: Arc<Stage>,
    pub(super) sizes: Arc<Mutex<DecodedSizes>>,
}

/// The sizes of the pictures of a source, of all its decoders.
#[derive(Debug, Default)]
pub(super) struct DecodedSizes {
    /// The size that was reported to the edge.
    reported: Option<Size>,
    changes: RateLimit,
}

impl DecodedSizes {
    /// Takes the size of a picture of this time. Returns whether it is another one than before; None if it changes too
    /// often.
    fn take(&mut self, size: Size, at: Timestamp) -> Option<bool> {
        if self.reported == Some(size) {
            return Some(false);
        }
        if self.reported.is_some() && !self.changes.allow(SIZE_CHANGES_MAX, SIZE_CHANGES_WITHIN, at) {
            return None;
        }
        self.reported = Some(size);
        Some(true)
    }
}

/// The decoder of a source that is shown.
#[derive(Default)]
pub(super) struct Decoding {
    state: State,
    /// Where the decoder begins, or was to begin.
    entry: Option<Entry>,
    /// Frames that wait for the decoder, from a keyframe on if it is being built.
    waiting: VecDeque<(Bytes, Timestamp)>,
    /// Frames that may wait, beyond [`PENDING_MAX`]: those since the last keyframe of a source that enters.
    catching_up: usize,
    /// Those frames are still being taken. The decoder gets none before all are known, however soon it is built.
    entering: bool,
    /// Which of the frames that wait do so because the camera is still.
    batch: Batch,
    signals: Arc<Signals>,
    looks: Arc<Mutex<Looks>>,
    last_pts: Timestamp,
    /// Frames until the gradual refresh with which decoding began is complete.
    refreshing: u32,
    /// Frames that were dropped while they waited.
    dropped: u64,
}

#[derive(Default)]
enum State {
    /// The next entry point makes one.
    #[default]
    None,
    Building(Building<VideoDecoder>),
    Ready(VideoDecoder),
}

/// What a decoder reports from its thread.
#[derive(Debug, Default)]
struct Signals {
    failed: AtomicBool,
    keyframe_wanted: AtomicBool,
}

/// The look of each frame that is being decoded.
#[derive(Debug, Default)]
struct Looks {
    last: Look,
    current: Look,
    /// From the frame with this time on.
    changes: VecDeque<(Timestamp, Look)>,
    /// The newest keyframe or recovery point.
    entry: Option<Timestamp>,
    /// Pictures of earlier frames are not stored.
    stored_from: Timestamp,
}

impl Looks {
    /// A frame begins; its packets carry the changes of its look. `coded` are the colours that the frame itself
    /// signals.
    fn begin(&mut self, pts: Timestamp, frame: &VideoFrame, entry: Option<Entry>, coded: Option<Colours>) {
        if entry.is_some() {
            self.entry = Some(pts);
        }
        let mut newest = frame.packets.iter().rev();
        let look = Look {
            rotation: newest.clone().find_map(|packet| packet.rotation).unwrap_or(self.last.rotation),
            colours: newest.find_map(|packet| packet.colours).or(coded).unwrap_or(self.last.colours),
        };
        if look != self.last {
            self.last = look;
            self.changes.push_back((pts, look));
        }
    }

    /// Pictures of frames before this one are not stored.
    fn store_from(&mut self, pts: Timestamp) {
        self.stored_from = self.stored_from.max(pts);
    }

    /// None for a picture that is not stored.
    fn at(&mut self, pts: Timestamp) -> Option<Look> {
        while let Some(&(from, look)) = self.changes.front()
            && from <= pts
        {
            self.current = look;
            self.changes.pop_front();
        }
        (pts >= self.stored_from).then_some(self.current)
    }
}

impl Decoding {
    /// Whether the decoder has failed since the last call; then the next entry point makes another one.
    pub(super) fn take_failure(&mut self) -> bool {
        let failed = self.signals.failed.swap(false, Ordering::AcqRel);
        if failed {
            self.end();
        }
        failed
    }

    /// Whether the decoder has asked for a keyframe since the last call.
    pub(super) fn take_keyframe_wanted(&self) -> bool {
        self.signals.keyframe_wanted.swap(false, Ordering::AcqRel)
    }

    /// Whether a decoder that was being built is there.
    pub(super) fn is_built(&self) -> bool {
        matches!(&self.state, State::Building(building) if building.is_done())
    }

    /// Whether its decoder begins at a recovery point.
    pub(super) fn recovers(&self) -> bool {
        matches!(self.entry, Some(Entry::RecoveryPoint { .. }))
    }

    /// Frames that were dropped while they waited for the decoder.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Ends the decoder; the frames that wait for it are dropped.
    pub(super) fn end(&mut self) {
        self.state = State::None;
        self.drop_waiting();
    }

    fn drop_waiting(&mut self) {
        self.batch.end();
        self.dropped += self.waiting.len() as u64;
        self.waiting.clear();
    }

    /// So many packets since the last keyframe follow, and are to be caught up.
    pub(super) fn catch_up(&mut self, packets: usize) {
        self.catching_up = packets;
        self.entering = true;
    }

    /// The packets since the last keyframe were decoded as far as they can be; live frames follow.
    pub(super) fn caught_up(&mut self) {
        self.entering = false;
        let first_stored = self.waiting.len().saturating_sub(CAUGHT_UP);
        if let Some((_, pts)) = self.waiting.get(first_stored) {
            self.looks.lock().store_from(*pts);
        }
    }

    /// Takes a frame. `entry`: decoding can begin with it, and does if there is no decoder.
    pub(super) fn push(
        &mut self,
        whole: Bytes,
        frame: &VideoFrame,
        entry: Option<Entry>,
        owner: &Owner,
        shared: &Shared,
    ) -> Result<(), CodecError> {
        let last = frame.packets.last().expect("a frame has packets");
        // The arrival of the frame, made unique because it identifies the frame.
        let pts = last.arrival.max(self.last_pts + Duration::from_micros(1));
        self.last_pts = pts;
        let had_batch = self.batch.due().is_some();
        let may_wait = matches!(self.state, State::Ready(_)) && self.catching_up == 0 && self.refreshing == 0;
        // Other codecs may reorder pictures: those of earlier frames come after the batch.
        let keeps_order = matches!(owner.codec, Codec::Vp8 | Codec::Vp9);
        let is_still = may_wait && keeps_order && entry.is_none() && owner.slot.is_still();
        let waits = self.batch.waits(whole.len(), is_still, pts);
        if had_batch && !waits {
            // Of the whole batch the picture of this frame is stored.
            self.looks.lock().store_from(pts);
            self.decode_waiting()?;
        }
        if entry == Some(Entry::Keyframe) {
            // Decoding begins with the newest keyframe.
            self.drop_waiting();
            self.refreshing = 0;
        }
        if matches!(self.state, State::None) {
            let begins = entry.ok_or(CodecError::KeyframeNeeded)?;
            self.state = State::Building(self.build(begins, owner, shared)?);
            self.entry = Some(begins);
            self.refreshing = match begins {
                Entry::RecoveryPoint { frames } => frames.min(REFRESH_MAX),
                Entry::Keyframe => 0,
            };
        }
        if self.refreshing > 0 {
            self.refreshing -= 1;
            self.looks.lock().store_from(pts + Duration::from_micros(1));
        }
        let coded = entry.and_then(|_| coded_colours(owner.codec, &whole));
        match &mut self.state {
            State::Ready(decoder)
                if !waits && self.waiting.is_empty() && (self.catching_up == 0 || decoder.has_room()) =>
            {
                self.looks.lock().begin(pts, frame, entry, coded);
                decoder.push(whole, pts)?;
            }
            _ if self.waiting.len() >= PENDING_MAX + self.catching_up => {
                return Err(CodecError::Behind(self.waiting.len() as u64));
            }
            _ => {
                self.looks.lock().begin(pts, frame, entry, coded);
                self.waiting.push_back((whole, pts));
            }
        }
        Ok(())
    }

    /// When the frames of a still camera that wait are decoded at the latest, by [`feed`](Self::feed).
    pub(super) fn batch_due(&self) -> Option<Timestamp> {
        self.batch.due()
    }

    /// Takes the decoder that was being built, if it is there, and gives it the frames that wait. Returns when to call
    /// again, if frames still wait for a decoder.
    pub(super) fn feed(&mut self, now: Timestamp) -> Result<Option<Duration>, CodecError> {
        if self.entering {
            return Ok(None);
        }
        if let Some(due) = self.batch.due() {
            if now < due {
                return Ok(None);
            }
            self.batch.end();
            if let Some((_, last)) = self.waiting.back() {
                self.looks.lock().store_from(*last);
            }
        }
        if let State::Building(building) = &self.state {
            let Some(built) = building.take() else { return Ok(None) };
            self.state = State::None;
            self.state = State::Ready(built?);
        }
        self.decode_waiting()
    }

    /// Passes the frames that wait to the decoder, as far as it has room.
    fn decode_waiting(&mut self) -> Result<Option<Duration>, CodecError> {
        let State::Ready(decoder) = &mut self.state else { return Ok(None) };
        while decoder.has_room() {
            let Some((frame, pts)) = self.waiting.pop_front() else {
                self.catching_up = 0;
                return Ok(None);
            };
            if let Err(error) = decoder.push(frame, pts) {
                self.drop_waiting();
                return Err(error);
            }
        }
        Ok((!self.waiting.is_empty()).then_some(FEED_INTERVAL))
    }

    /// Begins to make a decoder.
    fn build(&mut self, entry: Entry, owner: &Owner, shared: &Shared) -> Result<Building<VideoDecoder>, CodecError> {
        // A decoder that was replaced may still report its end.
        self.signals = Arc::default();
        let (writer, looks, signals) = (Arc::new(owner.slot.writer()), self.looks.clone(), self.signals.clone());
        let filters = owner.filters.clone();
        let (id, outbox, sizes) = (owner.id, shared.outbox.clone(), owner.sizes.clone());
        let sink = move |decoded| match decoded {
            Decoded::Picture { picture, pts } => {
                let size = picture.size();
                match sizes.lock().take(size, pts) {
                    Some(true) => outbox.push(FromMixer::SourceSize(id, size)),
                    Some(false) => {}
                    None => {
                        tracing::debug!(source = %id, %size, "decoded picture size changes too often");
                        signals.failed.store(true, Ordering::Release);
                        return;
                    }
                }
                let (look, is_keyframe) = {
                    let mut looks = looks.lock();
                    (looks.at(pts), looks.entry == Some(pts))
                };
                if let Some(Look { rotation, colours }) = look {
                    let to = Target::Slot { rotation, is_keyframe, writer: writer.clone() };
                    filters.put(Frame { raw: Raw::Picture(picture, colours), arrival: pts, to });
                }
            }
            Decoded::KeyframeWanted => signals.keyframe_wanted.store(true, Ordering::Release),
            Decoded::Failed(reason) => {
                tracing::debug!(source = %id, reason, "decoder failed");
                signals.failed.store(true, Ordering::Release);
            }
        };
        let (codec, limits, built) = (owner.codec, shared.limits, shared.built.clone());
        let journal = shared.outbox.journal().entry(id);
        let make = move || {
            let decoder = VideoDecoder::starting_at(entry, codec, limits, sink)?;
            decoder.on_busy(move |busy| journal.set(busy));
            Ok(decoder)
        };
        shared.builder.build(make, move || built())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_decoded_pictures_that_change_in_every_picture_are_refused_after_a_few() {
        let mut sizes = DecodedSizes::default();
        let at = |ms: u64| Timestamp::from_micros(ms * 1_000);
        let size = |n: u64| Size::new(if n.is_multiple_of(2) { 640 } else { 320 }, 240);
        let taken: Vec<_> = (0..100).map(|n| sizes.take(size(n), at(n * 33))).collect();
        assert!(taken[..=SIZE_CHANGES_MAX].iter().all(|taken| *taken == Some(true)), "{taken:?}");
        // The last accepted size is not refused.
        let (refused, known) = (SIZE_CHANGES_MAX + 1, SIZE_CHANGES_MAX + 2);
        assert!(taken[refused..].iter().step_by(2).all(Option::is_none), "{taken:?}");
        assert!(taken[known..].iter().step_by(2).all(|taken| *taken == Some(false)), "{taken:?}");
        assert_eq!(sizes.take(size(1), at(20_000)), Some(true), "later it may change again");
    }
}
