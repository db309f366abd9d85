//! An input from another WebRTC server by WHEP.
//!
//! Owns: the session, and the PTS of its two streams. Does not know: ICE, DTLS and SRTP, which [`crate::client`]
//! does.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::open::{OpenError, Task};
use super::skipped::Skipped;
use super::timeline::Timeline;
use crate::client::connection::Collect;
use crate::client::session::{Session, SessionConfig};
use crate::client::signalling::SignallingError;
use crate::codec::Depayloader;
use crate::codec::intake::{Feed, FeedFormat, Feeder, Intake};
use crate::destination::{Destination, Guard, Web};
use crate::media::{AUDIO_RATE, Codec, Kind, SourcePacket, VIDEO_CLOCK};
use crate::room::document::SkipReason;
use crate::sdp::Direction;
use crate::time::Timestamp;

/// Time limit for the offer and the answer.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Opens the session; media is fed until the task ends.
pub(super) fn open(
    server: &Web,
    destination: &Destination,
    guard: &Guard,
    network: &Runtime,
    skipped: Arc<Skipped>,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Intake, Task), OpenError> {
    let (intake, feeder) = Intake::fed(wake).map_err(OpenError::transient)?;
    let config = SessionConfig {
        server,
        token: destination.token(),
        guard,
        direction: Direction::RecvOnly,
        codec: Codec::H264,
        collect: Collect { video: true, audio: true },
    };
    let opened = network.block_on(async { timeout(START_TIMEOUT, Session::open(config)).await });
    let session = opened.map_err(|_| OpenError::transient("the server does not answer"))?;
    let mut session = session.map_err(|error| match &error {
        SignallingError::Dial(dial) => OpenError::dial(dial),
        SignallingError::Refused(_) | SignallingError::Failed(_) => OpenError::transient(&error),
    })?;
    let task = network.spawn(async move {
        let received = receive(&mut session, &feeder, &skipped).await;
        session.close().await;
        if let Err(reason) = received {
            feeder.fail(reason);
        }
    });
    Ok((intake, Task(task)))
}

/// Feeds received media until the session or the feeder ends.
async fn receive(session: &mut Session, feeder: &Feeder, skipped: &Skipped) -> Result<(), String> {
    let mut depayloader = Depayloader::new(Codec::H264);
    let (mut picture, mut sound): (Option<Feed>, Option<Feed>) = (None, None);
    let (mut begun, mut video, mut audio) = (None, Times::new(VIDEO_CLOCK), Times::new(AUDIO_RATE));
    let mut timeline = Timeline::new(true);
    while !feeder.is_over() {
        session.drive().await?;
        while let Some(packets) = session.connection.video().frame() {
            let Some(first) = packets.first() else { continue };
            let timestamp = video.timestamp(first, *begun.get_or_insert(first.arrival));
            let malformed = depayloader.skipped();
            match depayloader.frame(&packets) {
                Ok(Some(frame)) => {
                    let pts = timeline.place(Kind::Video, timestamp, first.arrival, None);
                    push(&mut picture, feeder, &FeedFormat::H264, frame, pts)?;
                }
                // Parameter sets of the next picture, or padding.
                Ok(None) => {}
                Err(error) => {
                    skipped.add(Kind::Video, SkipReason::Malformed, error);
                    session.connection.request_keyframe();
                }
            }
            for _ in malformed..depayloader.skipped() {
                skipped.add(Kind::Video, SkipReason::Malformed, "a NAL unit");
            }
        }
        while let Some(packets) = session.connection.audio().frame() {
            for packet in packets {
                let timestamp = audio.timestamp(&packet, *begun.get_or_insert(packet.arrival));
                if packet.payload.is_empty() {
                    skipped.add(Kind::Audio, SkipReason::Empty, "an audio packet");
                    continue;
                }
                let pts = timeline.place(Kind::Audio, timestamp, packet.arrival, None);
                push(&mut sound, feeder, &FeedFormat::Opus, packet.payload, pts)?;
            }
        }
        feeder.set_jumps(timeline.jumps());
        session.wait().await;
    }
    Ok(())
}

fn push(
    feed: &mut Option<Feed>,
    feeder: &Feeder,
    format: &FeedFormat,
    data: bytes::Bytes,
    pts: Duration,
) -> Result<(), String> {
    let feed = match feed {
        Some(feed) => feed,
        none => none.insert(feeder.open(format).map_err(|error| error.to_string())?),
    };
    // A feeder that is over takes nothing; the loop ends then.
    let _taken = feed.push(data, pts);
    Ok(())
}

/// Timestamps of one stream in microseconds. Streams have clocks of their own, and are aligned by the arrival of their
/// first packets.
struct Times {
    rate: u32,
    /// The last RTP timestamp, and the ticks since the first.
    last: Option<(u32, i64)>,
    /// Time of the first packet.
    first: i64,
}

impl Times {
    const fn new(rate: u32) -> Self {
        Self { rate, last: None, first: 0 }
    }

    /// The timestamp of a packet, where the first packet of both streams arrived at `begun`.
    fn timestamp(&mut self, packet: &SourcePacket, begun: Timestamp) -> i64 {
        let ticks = match self.last {
            None => {
                self.first = packet.arrival.since(begun).as_micros() as i64;
                0
            }
            Some((timestamp, ticks)) => ticks + i64::from(packet.timestamp.wrapping_sub(timestamp).cast_signed()),
        };
        self.last = Some((packet.timestamp, ticks));
        self.first + (ticks * 1_000_000).div_euclid(i64::from(self.rate))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn timestamps_follow_rtp_from_the_first_arrival() {
        let begun = Timestamp::from_micros(1_000_000);
        let packet = |timestamp, later| SourcePacket {
            sequence: 0,
            timestamp,
            marker: false,
            arrival: begun + Duration::from_millis(later),
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: Bytes::new(),
        };
        let mut times = Times::new(VIDEO_CLOCK);
        assert_eq!(times.timestamp(&packet(u32::MAX - 1_499, 40), begun), 40_000);
        assert_eq!(times.timestamp(&packet(1_500, 90), begun), 73_333, "the timestamp has wrapped");
        assert_eq!(times.timestamp(&packet(1_500 + 9_000, 91), begun), 173_333);
        assert_eq!(times.timestamp(&packet(10_500_u32.wrapping_sub(90_000), 92), begun), 173_333 - 1_000_000);
    }
}
