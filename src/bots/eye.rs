//! A bot's eye: decodes what it gets and reads the time off the clock's tile.
//!
//! Owns: a decoder, the delays seen. Does not know: RTP, where tiles are: [`Spot`] is told from outside. Frames go in by
//! [`Eye::look`]; pictures are looked at on the decoder's thread.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::barcode::{self, Place};
use crate::codec::{CodecError, DecodeLimits, Decoded, Depayloader, VideoDecoder};
use crate::media::{Codec, SourcePacket};
use crate::time::{self, Timestamp};

/// A time that seems older than this was misread, or drawn by another machine's clock.
const OLDEST: Duration = Duration::from_secs(20);
/// Delays remembered: more than an hour at 30 a second.
const DELAYS_MAX: usize = 120_000;

/// Where the clock is seen; all eyes of a room share it.
pub(super) type Spot = Arc<Mutex<Option<Place>>>;

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Pictures decoded.
    pub(super) pictures: u64,
    /// From the moment a picture was taken to the moment it was decoded here.
    pub(super) delays: Vec<Duration>,
}

pub(super) struct Eye {
    depayloader: Depayloader,
    decoder: VideoDecoder,
    codec: Codec,
    spot: Spot,
    seen: Arc<Mutex<Seen>>,
}

impl Eye {
    pub(super) fn new(codec: Codec, spot: Spot) -> Result<Self, CodecError> {
        let seen = Arc::default();
        let decoder = decoder(codec, &spot, &seen)?;
        Ok(Self { depayloader: Depayloader::new(codec), decoder, codec, spot, seen })
    }

    /// Takes the packets of one frame. False when it needs a keyframe to go on.
    pub(super) fn look(&mut self, frame: &[SourcePacket], now: Timestamp) -> bool {
        let pushed = self.depayloader.frame(frame).and_then(|frame| self.decoder.push(frame, now));
        if let Err(CodecError::Failed) = pushed {
            match decoder(self.codec, &self.spot, &self.seen) {
                Ok(decoder) => self.decoder = decoder,
                Err(error) => tracing::warn!(%error, "a bot's decoder cannot be made again"),
            }
        }
        pushed.is_ok()
    }

    /// Forgets what was seen until now.
    pub(super) fn begin(&mut self) {
        *self.seen.lock() = Seen::default();
    }

    /// What was seen until now.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }
}

fn decoder(codec: Codec, spot: &Spot, seen: &Arc<Mutex<Seen>>) -> Result<VideoDecoder, CodecError> {
    let (spot, seen) = (Arc::clone(spot), Arc::clone(seen));
    VideoDecoder::new(codec, DecodeLimits::default(), move |decoded| {
        let Decoded::Picture { picture, .. } = decoded else { return };
        let now = time::now();
        let stamp = spot.lock().and_then(|place| barcode::read(&picture, place));
        let mut seen = seen.lock();
        seen.pictures += 1;
        if let Some(age) = stamp.map(|stamp| stamp.age(now)).filter(|age| *age < OLDEST)
            && seen.delays.len() < DELAYS_MAX
        {
            seen.delays.push(age);
        }
    })
}
