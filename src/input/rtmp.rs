//! Sources on RTMP servers: we play a stream.
//!
//! Owns: the connection, and the conversion of FLV tags to frames with timestamps. Does not know: RTMP messages
//! ([`crate::rtmp`]). In: a socket. Out: an [`Intake`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::open::{OpenError, Task};
use super::skipped::Skipped;
use super::timeline::{Timeline, Wrapped};
use crate::codec::intake::{Feed, FeedFormat, Feeder, Intake};
use crate::destination::{Guard, Rtmp};
use crate::dial::{self, Stream};
use crate::media::{AUDIO_RATE, Kind};
use crate::room::document::SkipReason;
use crate::rtmp::flv::{AudioTag, FlvError, VideoReader, VideoTag, read_audio, sample_rate};
use crate::rtmp::{Client, ClientEvent, Media, Purpose};
use crate::time::{Timestamp, now};

/// Timeout until the server starts to play.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Size of a read in bytes.
const READ_BUFFER: usize = 32 << 10;
/// A larger offset between the timestamp of a picture and its presentation is an error of the encoder.
const MAX_COMPOSITION: Duration = Duration::from_secs(2);
/// Samples of an AAC frame.
const AAC_FRAME_SAMPLES: u16 = 1024;

/// Connects to a server and starts to play.
pub(super) fn open(
    rtmp: &Rtmp,
    guard: &Guard,
    network: &Runtime,
    skipped: Arc<Skipped>,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Intake, Task), OpenError> {
    let (intake, feeder) = Intake::fed(wake).map_err(OpenError::transient)?;
    let connecting = async {
        let stream = dial::connect(&rtmp.endpoint, rtmp.tls, guard).await.map_err(|error| OpenError::dial(&error))?;
        let client = Client::new(rtmp, Purpose::Play).map_err(OpenError::transient)?;
        let mut connection = Connection { stream, client };
        let events = timeout(START_TIMEOUT, connection.begin()).await;
        let events = events.map_err(|_| OpenError::transient("the server did not respond in time"))??;
        Ok((connection, events))
    };
    let (connection, events) = network.block_on(connecting)?;
    let task = network.spawn(async move {
        if let Err(reason) = connection.play(events, &feeder, skipped).await {
            feeder.fail(reason);
        }
    });
    Ok((intake, Task(task)))
}

struct Connection {
    stream: Box<dyn Stream>,
    client: Client,
}

impl Connection {
    /// Sends pending output and reads once; None when the server closed the connection.
    async fn exchange(&mut self) -> Result<Option<Vec<ClientEvent>>, String> {
        let output = self.client.output();
        self.stream.write_all(&output).await.map_err(|_| "connection lost")?;
        let mut bytes = vec![0; READ_BUFFER];
        match self.stream.read(&mut bytes).await {
            Ok(0) => Ok(None),
            Ok(length) => self.client.input(&bytes[..length]).map(Some).map_err(|error| error.to_string()),
            Err(_) => Err("connection lost".to_owned()),
        }
    }

    /// Exchanges messages until the server plays; returns the first media events.
    async fn begin(&mut self) -> Result<Vec<ClientEvent>, OpenError> {
        loop {
            let events = self.exchange().await.map_err(OpenError::transient)?;
            let mut events = events.ok_or_else(|| OpenError::transient("the server closed the connection"))?;
            if let Some(ClientEvent::Refused(why)) = events.iter().find(|e| matches!(e, ClientEvent::Refused(_))) {
                return Err(OpenError::transient(format!("the server refuses: {why}")));
            }
            let begins = |event: &ClientEvent| matches!(event, ClientEvent::Ready | ClientEvent::Media(_));
            if let Some(at) = events.iter().position(begins) {
                return Ok(events.split_off(at));
            }
        }
    }

    /// Feeds the server's media until the stream ends.
    async fn play(
        mut self,
        mut events: Vec<ClientEvent>,
        feeder: &Feeder,
        skipped: Arc<Skipped>,
    ) -> Result<(), String> {
        let mut tags = Tags::new(skipped);
        while !feeder.is_over() {
            for event in events {
                match event {
                    ClientEvent::Ready => {}
                    ClientEvent::Refused(why) => return Err(format!("the server ended the stream: {why}")),
                    ClientEvent::Media(media) => tags.take(media, feeder, now())?,
                }
            }
            let Some(next) = self.exchange().await? else { return Ok(()) };
            events = next;
        }
        Ok(())
    }
}

/// Converts FLV tags to frames with positions. Skips and counts what cannot be used.
pub(super) struct Tags {
    reader: VideoReader,
    video: Option<Feed>,
    /// The audio feed, and its AudioSpecificConfig.
    audio: Option<(Feed, Bytes)>,
    wrapped: Wrapped,
    timeline: Timeline,
    /// A keyframe was received.
    has_keyframe: bool,
    skipped: Arc<Skipped>,
}

impl Tags {
    pub(super) fn new(skipped: Arc<Skipped>) -> Self {
        Self {
            reader: VideoReader::default(),
            video: None,
            audio: None,
            wrapped: Wrapped::default(),
            timeline: Timeline::new(true),
            has_keyframe: false,
            skipped,
        }
    }

    /// Feeds an audio or video message that arrived at `arrival`.
    ///
    /// # Errors
    /// A text: nothing of the source can be decoded.
    pub(super) fn take(&mut self, media: Media, feeder: &Feeder, arrival: Timestamp) -> Result<(), String> {
        let (kind, taken) = match media {
            Media::Video { time_ms, tag } => (Kind::Video, self.picture(time_ms, tag, feeder, arrival)?),
            Media::Audio { time_ms, tag } => (Kind::Audio, self.sound(time_ms, tag, feeder, arrival)?),
        };
        match taken {
            Ok(()) => self.skipped.usable(kind),
            Err(error) => self.skipped.add(kind, reason(error), error),
        }
        feeder.set_jumps(self.timeline.jumps());
        self.skipped.hopeless().map_or(Ok(()), Err)
    }

    /// The position of a message; configurations have none, because some encoders send them with the time 0.
    fn position(&mut self, kind: Kind, time_ms: u32, arrival: Timestamp) -> Duration {
        let timestamp = self.wrapped.unwrap(kind, time_ms) * 1_000;
        self.timeline.place(kind, timestamp, arrival, None)
    }

    fn picture(
        &mut self,
        time_ms: u32,
        tag: Bytes,
        feeder: &Feeder,
        arrival: Timestamp,
    ) -> Result<Result<(), FlvError>, String> {
        let frame = match self.reader.read(tag) {
            Ok(VideoTag::Frame(frame)) => frame,
            Ok(VideoTag::Config | VideoTag::Other) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        for _ in 0..frame.removed_units {
            self.skipped.add(Kind::Video, SkipReason::Malformed, "a NAL unit of a reserved type");
        }
        self.has_keyframe |= frame.keyframe;
        if !self.has_keyframe {
            return Ok(Ok(()));
        }
        let position = self.position(Kind::Video, time_ms, arrival);
        let feed = match &self.video {
            Some(feed) => feed,
            None => self.video.insert(feeder.open(&FeedFormat::H264).map_err(|error| error.to_string())?),
        };
        // A push after the end is ignored: the caller's loop checks `is_over`.
        let _taken = feed.push(frame.access_unit, presented(position, frame.composition_ms));
        Ok(Ok(()))
    }

    fn sound(
        &mut self,
        time_ms: u32,
        tag: Bytes,
        feeder: &Feeder,
        arrival: Timestamp,
    ) -> Result<Result<(), FlvError>, String> {
        let (config, frames) = match read_audio(tag) {
            Ok(AudioTag::Config(config)) => (Some(config), Vec::new()),
            Ok(AudioTag::Frame(frame)) => (None, vec![frame]),
            Ok(AudioTag::Adts { config, frames }) => (Some(config), frames),
            Err(error) => return Ok(Err(error)),
        };
        if let Some(config) = config {
            let format = FeedFormat::Aac(config.to_vec());
            match &mut self.audio {
                Some((_, known)) if *known == config => {}
                Some((feed, known)) => {
                    feed.reformat(&format);
                    *known = config;
                }
                None => self.audio = Some((feeder.open(&format).map_err(|error| error.to_string())?, config)),
            }
        }
        if self.audio.is_none() {
            return Ok(Err(FlvError::NoConfig("audio")));
        }
        if frames.is_empty() {
            return Ok(Ok(()));
        }
        let mut position = self.position(Kind::Audio, time_ms, arrival);
        let Some((feed, config)) = &self.audio else { return Ok(Ok(())) };
        let rate = sample_rate(config).unwrap_or(AUDIO_RATE);
        for frame in frames {
            let _taken = feed.push(frame, position);
            position += Duration::from_secs_f64(f64::from(AAC_FRAME_SAMPLES) / f64::from(rate));
        }
        Ok(Ok(()))
    }
}

/// Why a message that cannot be read is skipped.
const fn reason(error: FlvError) -> SkipReason {
    match error {
        FlvError::Empty(_) => SkipReason::Empty,
        FlvError::Malformed(_) => SkipReason::Malformed,
        FlvError::NoConfig(_) => SkipReason::NoConfig,
        FlvError::VideoCodec | FlvError::AudioCodec => SkipReason::Unsupported,
    }
}

/// Presentation time of a picture. An offset that no order of pictures explains is ignored.
fn presented(position: Duration, composition_ms: i32) -> Duration {
    let offset = Duration::from_millis(composition_ms.unsigned_abs().into());
    match composition_ms {
        _ if offset > MAX_COMPOSITION => position,
        0.. => position + offset,
        _ => position.saturating_sub(offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composition_offsets_are_applied_unless_they_are_absurd() {
        let at = Duration::from_millis;
        assert_eq!(presented(at(5_000), 80), at(5_080));
        assert_eq!(presented(at(5_000), -40), at(4_960));
        assert_eq!(presented(at(5_000), 8_000_000), at(5_000));
        assert_eq!(presented(at(5_000), i32::MIN), at(5_000));
    }
}
