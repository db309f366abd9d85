//! What a peer is sent: its tracks, and the writer that drains its subscriber into them.
//!
//! Owns: the SSRCs, and the order in which packets leave. Does not know: where streams come from. Sending waits for the
//! connection's driver, so each peer has a writer of its own and nobody else waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use super::description::Format;
use super::introductions::Introductions;
use super::repairs::Beginning;
use super::{Counters, engine};
use crate::fanout::{Header, Outgoing, Rewriter, Subscriber};
use crate::media::Kind;
use crate::tier::Pacer;
use crate::time;

/// SSRCs of what a peer is sent; the one above each is for its retransmissions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ssrcs {
    pub(super) audio: u32,
    pub(super) video: u32,
}

impl Ssrcs {
    pub(super) fn random() -> Self {
        // Four apart at least, and never 0, which some take for "none".
        let audio = rand::random::<u32>() | 1;
        Self { audio, video: audio ^ 0x8000_0004 }
    }

    /// None of those that an offer names (RFC 3550 section 8.1).
    pub(super) fn apart_from(offer: &str) -> Self {
        let numbers = offer.lines().filter_map(|line| line.strip_prefix("a=ssrc:")?.split(' ').next()?.parse().ok());
        let theirs: Vec<u32> = numbers.collect();
        loop {
            let ours = Self::random();
            if !theirs.iter().any(|ssrc| ours.has(*ssrc)) {
                return ours;
            }
        }
    }

    /// Whether it is one of them, or of what repairs them.
    pub(super) fn has(self, ssrc: u32) -> bool {
        [self.audio, self.video].iter().any(|ours| ssrc.wrapping_sub(*ours) <= 2)
    }

    /// That of the repair packets of a stream which nobody asks for.
    pub(super) const fn protection(ssrc: u32) -> u32 {
        ssrc.wrapping_add(2)
    }

    /// That of the stream which repairs another.
    pub(super) const fn repair(ssrc: u32) -> u32 {
        ssrc.wrapping_add(1)
    }
}

/// One track to a peer.
pub(super) struct Output {
    ssrc: u32,
    track: Arc<TrackLocalStaticRTP>,
    rewriter: Rewriter,
    /// Id of the extension that tells how loud those are who are heard.
    levels: Option<u8>,
    pub(super) format: Format,
}

impl Output {
    /// `levels` is the id of the extension that tells how loud those are who are heard.
    pub(super) fn new(format: Format, levels: Option<u8>, ssrcs: Ssrcs, sends: bool) -> Self {
        let ssrc = if format.codec.kind() == Kind::Audio { ssrcs.audio } else { ssrcs.video };
        let header = Header {
            ssrc,
            payload_type: format.payload_type,
            sequence: rand::random(),
            timestamp_offset: rand::random(),
        };
        Self {
            ssrc,
            track: Arc::new(TrackLocalStaticRTP::new(engine::track_out(&format, ssrc, sends))),
            rewriter: Rewriter::new(header, format.codec),
            levels,
            format,
        }
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub(super) fn track(&self) -> Arc<TrackLocalStaticRTP> {
        Arc::clone(&self.track)
    }
}

/// The tracks to a peer, as far as it takes them.
#[derive(Default)]
pub(super) struct Outputs {
    pub(super) audio: Option<Output>,
    pub(super) video: Option<Output>,
}

/// Whoever waits until video may leave looks again after so long: it may be allowed sooner meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Sends what the subscriber gets until the connection ends.
pub(super) async fn write(
    subscriber: Arc<Subscriber>,
    outputs: Arc<Mutex<Outputs>>,
    counters: Arc<Counters>,
    pacer: Arc<Mutex<Pacer>>,
    beginning: Arc<Beginning>,
    introductions: Arc<Mutex<Introductions>>,
) {
    loop {
        let wait = pacer.lock().wait(time::now());
        let outgoing = match wait {
            None => subscriber.next().await,
            // Sound never waits for video to be allowed.
            Some(wait) => match tokio::time::timeout(wait.min(LOOK), subscriber.next_audio()).await {
                Ok(outgoing) => outgoing,
                Err(_) => continue,
            },
        };
        let ready = {
            let mut outputs = outputs.lock();
            match &outgoing {
                Outgoing::Audio(packet, heard) => outputs.audio.as_mut().map(|output| {
                    let mut packet = output.rewriter.rewrite(packet, false);
                    heard.write(&mut packet.header, output.levels);
                    introductions.lock().heard(heard);
                    (output.track(), packet)
                }),
                Outgoing::Video { packet, resumes } => {
                    outputs.video.as_mut().map(|output| (output.track(), output.rewriter.rewrite(packet, *resumes)))
                }
                Outgoing::Left(csrc) => {
                    // Told with the next report: there is one a second.
                    introductions.lock().left(*csrc);
                    None
                }
            }
        };
        let Some((track, packet)) = ready else { continue };
        if let Outgoing::Video { resumes, .. } = outgoing {
            if resumes {
                beginning.set(packet.header.sequence_number);
            }
            pacer.lock().sent(packet.payload.len());
        } else {
            pacer.lock().sound(packet.payload.len(), time::now());
        }
        counters.packets_out.fetch_add(1, Ordering::Relaxed);
        counters.bytes_out.fetch_add(packet.payload.len() as u64, Ordering::Relaxed);
        if let Err(error) = track.write_rtp(packet).await {
            tracing::debug!(%error, "the writer ends with its connection");
            return;
        }
    }
}
