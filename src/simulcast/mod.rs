//! Simulcast: of the encodings that a client sends of one source, one is received.
//!
//! Owns: [`Simulcast`] of one source: [`select`] chooses the encoding, [`splice`] joins the chosen encodings to one RTP
//! stream that changes its picture size at keyframes. Does not know: RTP headers, RIDs, payload formats, tiles. In:
//! packets of all encodings, where keyframes begin, the picture size that is needed. Out: packets of one stream, and
//! the encodings from which a keyframe is needed. Pure: time is an argument.

mod select;
mod splice;

use self::select::Selector;
pub use self::select::{DWELL, LOWER_HOLD, nearest};
pub use self::splice::Spliced;
use self::splice::Splicer;
use crate::media::{Codec, Size, SourcePacket};
use crate::time::Timestamp;

/// The encodings of one source.
#[derive(Debug)]
pub struct Simulcast {
    selector: Selector,
    splicer: Splicer,
}

impl Simulcast {
    /// Of so many encodings. `wanted` is the size at which the picture is shown at most, if it is known.
    pub fn new(encodings: usize, wanted: Option<Size>) -> Self {
        Self { selector: Selector::new(encodings, wanted), splicer: Splicer::new(encodings) }
    }

    /// The size at which the picture is shown at most; zero while it is not shown.
    pub fn want(&mut self, size: Size, now: Timestamp) {
        self.selector.want(size, now);
    }

    /// Takes a packet. `keyframe`: a keyframe of this size begins in it. Appends to `out` what belongs to the one
    /// stream; true if that begins with another encoding than before.
    pub fn take(
        &mut self,
        encoding: usize,
        codec: Codec,
        packet: SourcePacket,
        keyframe: Option<Size>,
        now: Timestamp,
        out: &mut Vec<Spliced>,
    ) -> bool {
        self.selector.received(encoding, keyframe, now);
        let switched = self.splicer.take(encoding, codec, packet, keyframe.is_some(), self.selector.target(), now, out);
        if switched {
            self.selector.switched(encoding, now);
        }
        switched
    }

    /// A lost packet of an encoding was requested, and did not come.
    pub fn unrepaired(&mut self, encoding: usize, now: Timestamp) {
        self.selector.unrepaired(encoding, now);
    }

    /// The client has stopped an encoding, which it may send again; another one follows. False if no other one is sent.
    pub fn stopped(&mut self, encoding: usize, now: Timestamp) -> bool {
        self.selector.stopped(encoding, now)
    }

    /// The stream of an encoding begins anew, with other sequence numbers.
    pub fn restarted(&mut self, encoding: usize) {
        self.selector.restarted(encoding);
        self.splicer.restarted(encoding);
    }

    /// Whether lost packets of this encoding are requested: it is received, will be next, or nothing is received yet.
    pub fn repairs(&self, encoding: usize) -> bool {
        let current = self.selector.current();
        current.is_none()
            || current == Some(encoding)
            || self.selector.target() == Some(encoding)
            || self.splicer.previous() == Some(encoding)
    }

    /// The encoding that is received.
    pub fn current(&self) -> Option<usize> {
        self.selector.current()
    }

    /// The sizes of the encodings that are sent and smaller than the one that is wanted: a browser sends them first, so
    /// they need their share of its bitrate.
    pub fn smaller(&self) -> impl Iterator<Item = Size> {
        self.selector.smaller()
    }

    /// The encodings from which a keyframe is to be requested now; counts as a request.
    pub fn requests(&mut self, now: Timestamp) -> Vec<usize> {
        self.selector.requests(now)
    }

    /// When [`requests`](Self::requests) next has one, if no packet comes before.
    pub fn request_due(&self) -> Option<Timestamp> {
        self.selector.request_due()
    }
}
