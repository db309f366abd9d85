//! Sources on RTMP servers: we play a stream.
//!
//! Owns: the connection, and the conversion of FLV tags to frames with timestamps. Does not know: RTMP messages
//! ([`crate::rtmp`]). In: a socket. Out: an [`Intake`].

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::open::{OpenError, Task};
use crate::codec::intake::{Feed, FeedFormat, Feeder, Intake};
use crate::destination::{Guard, Rtmp};
use crate::dial::{self, Stream};
use crate::rtmp::flv::{AudioTag, VideoReader, VideoTag, read_audio};
use crate::rtmp::{Client, ClientEvent, Media, Purpose};

/// Timeout until the server starts to play.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Size of a read in bytes.
const READ_BUFFER: usize = 32 << 10;
/// First timestamp in milliseconds: not 0, so that pictures presented before the first one have a timestamp too.
const START_OFFSET: i64 = 1_000;

/// Connects to a server and starts to play.
pub(super) fn open(
    rtmp: &Rtmp,
    guard: &Guard,
    network: &Runtime,
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
        if let Err(reason) = connection.play(events, &feeder).await {
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
    async fn play(mut self, mut events: Vec<ClientEvent>, feeder: &Feeder) -> Result<(), String> {
        let mut tags = Tags::default();
        while !feeder.is_over() {
            for event in events {
                match event {
                    ClientEvent::Ready => {}
                    ClientEvent::Refused(why) => return Err(format!("the server ended the stream: {why}")),
                    ClientEvent::Media(media) => tags.take(media, feeder)?,
                }
            }
            let Some(next) = self.exchange().await? else { return Ok(()) };
            events = next;
        }
        Ok(())
    }
}

/// Converts FLV tags to frames with timestamps.
#[derive(Default)]
pub(super) struct Tags {
    reader: VideoReader,
    video: Option<Feed>,
    audio: Option<(Feed, Vec<u8>)>,
    unwrapper: TimestampUnwrapper,
    /// A keyframe was received.
    has_keyframe: bool,
}

impl Tags {
    /// Feeds an audio or video message.
    ///
    /// # Errors
    /// A text: the media cannot be decoded.
    pub(super) fn take(&mut self, media: Media, feeder: &Feeder) -> Result<(), String> {
        match media {
            Media::Video { time_ms, tag } => self.picture(time_ms, tag, feeder),
            Media::Audio { time_ms, tag } => self.sound(time_ms, tag, feeder),
        }
    }

    fn picture(&mut self, time_ms: u32, tag: bytes::Bytes, feeder: &Feeder) -> Result<(), String> {
        let time = self.unwrapper.unwrap(time_ms);
        let VideoTag::Frame(frame) = self.reader.read(tag).map_err(|error| error.to_string())? else { return Ok(()) };
        self.has_keyframe |= frame.keyframe;
        if !self.has_keyframe {
            return Ok(());
        }
        let feed = match &self.video {
            Some(feed) => feed,
            None => self.video.insert(feeder.open(&FeedFormat::H264).map_err(|error| error.to_string())?),
        };
        // A push after the end is ignored: the caller's loop checks `is_over`.
        let _taken = feed.push(frame.access_unit, millis(time + i64::from(frame.composition_ms)));
        Ok(())
    }

    fn sound(&mut self, time_ms: u32, tag: bytes::Bytes, feeder: &Feeder) -> Result<(), String> {
        let time = self.unwrapper.unwrap(time_ms);
        match read_audio(tag).map_err(|error| error.to_string())? {
            AudioTag::Config(config) => match &self.audio {
                Some((_, known)) if known[..] != config[..] => {
                    return Err("the audio format changed during the stream".into());
                }
                Some(_) => {}
                None => {
                    let config = config.to_vec();
                    let feed = feeder.open(&FeedFormat::Aac(config.clone())).map_err(|error| error.to_string())?;
                    self.audio = Some((feed, config));
                }
            },
            AudioTag::Frame(frame) => {
                if let Some((feed, _)) = &self.audio {
                    let _taken = feed.push(frame, millis(time));
                }
            }
        }
        Ok(())
    }
}

/// Unwraps 32-bit timestamps, relative to the first one.
#[derive(Debug, Default)]
struct TimestampUnwrapper(Option<(i64, u32)>);

impl TimestampUnwrapper {
    fn unwrap(&mut self, time_ms: u32) -> i64 {
        let unwrapped = match self.0 {
            None => START_OFFSET,
            Some((before, raw)) => before + i64::from(time_ms.wrapping_sub(raw) as i32),
        };
        self.0 = Some((unwrapped, time_ms));
        unwrapped
    }
}

fn millis(time: i64) -> Duration {
    Duration::from_millis(time.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_relative_to_the_first_and_unwrapped() {
        let mut unwrapper = TimestampUnwrapper::default();
        assert_eq!(unwrapper.unwrap(u32::MAX - 10), START_OFFSET);
        assert_eq!(unwrapper.unwrap(29), START_OFFSET + 40);
        assert_eq!(unwrapper.unwrap(9), START_OFFSET + 20, "audio and video are interleaved");
        assert_eq!(millis(-5), Duration::ZERO);
    }
}
