//! The decoder of a bot: decodes the received video and reads the clock in its tile.
//!
//! Owns: a decoder, the delays read. Does not know: RTP, the layout: [`ClockTile`] is set from outside. Frames go in by
//! [`ClockReader::decode`]; pictures are read on the decoder's thread.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::barcode::{self, Place};
use crate::codec::{CodecError, DecodeLimits, Decoded, Depayloader, VideoDecoder};
use crate::media::{Codec, SourcePacket};
use crate::time::{self, Timestamp};

/// An older time was misread, or comes from the clock of another machine.
const OLDEST: Duration = Duration::from_secs(20);
/// Most delays kept: more than an hour at 30 per second.
const DELAYS_MAX: usize = 120_000;

/// Where the clock is shown; shared by all readers of a room.
pub(super) type ClockTile = Arc<Mutex<Option<Place>>>;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Readings {
    /// Decoded pictures.
    pub(super) pictures: u64,
    /// Time from taking a picture to decoding it here.
    pub(super) delays: Vec<Duration>,
}

pub(super) struct ClockReader {
    depayloader: Depayloader,
    decoder: VideoDecoder,
    codec: Codec,
    tile: ClockTile,
    readings: Arc<Mutex<Readings>>,
}

impl ClockReader {
    pub(super) fn new(codec: Codec, tile: ClockTile) -> Result<Self, CodecError> {
        let readings = Arc::default();
        let decoder = decoder(codec, &tile, &readings)?;
        Ok(Self { depayloader: Depayloader::new(codec), decoder, codec, tile, readings })
    }

    /// Decodes one frame; false when a keyframe is needed.
    pub(super) fn decode(&mut self, frame: &[SourcePacket], now: Timestamp) -> bool {
        let pushed = match self.depayloader.frame(frame) {
            Ok(Some(frame)) => self.decoder.push(frame, now),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(CodecError::Failed) = pushed {
            match decoder(self.codec, &self.tile, &self.readings) {
                Ok(decoder) => self.decoder = decoder,
                Err(error) => tracing::warn!(%error, "decoder of a bot not restarted"),
            }
        }
        pushed.is_ok()
    }

    /// Forgets the readings so far.
    pub(super) fn reset(&mut self) {
        *self.readings.lock() = Readings::default();
    }

    /// The readings so far.
    pub(super) fn readings(&self) -> Readings {
        self.readings.lock().clone()
    }
}

fn decoder(codec: Codec, tile: &ClockTile, readings: &Arc<Mutex<Readings>>) -> Result<VideoDecoder, CodecError> {
    let (tile, readings) = (Arc::clone(tile), Arc::clone(readings));
    VideoDecoder::new(codec, DecodeLimits::default(), move |decoded| {
        let Decoded::Picture { picture, .. } = decoded else { return };
        let now = time::now();
        let stamp = tile.lock().and_then(|place| barcode::read(&picture, place));
        let mut readings = readings.lock();
        readings.pictures += 1;
        if let Some(age) = stamp.map(|stamp| stamp.age(now)).filter(|age| *age < OLDEST)
            && readings.delays.len() < DELAYS_MAX
        {
            readings.delays.push(age);
        }
    })
}
