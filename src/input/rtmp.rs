//! Sources that speak RTMP: we play what a server has.
//!
//! Owns: the connection, and how its tags become frames with times. Does not know: RTMP's messages ([`crate::rtmp`]).

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

/// How long a server may take until it plays.
const BEGINNING: Duration = Duration::from_secs(10);
/// Bytes read at once.
const READ: usize = 32 << 10;
/// Times begin here, so that a picture which is shown before the first one has one too.
const MARGIN: i64 = 1_000;

/// Connects to a server and plays from it.
pub(super) fn open(
    rtmp: &Rtmp,
    guard: &Guard,
    network: &Runtime,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Intake, Task), OpenError> {
    let (intake, feeder) = Intake::fed(wake).map_err(OpenError::passing)?;
    let connecting = async {
        let stream = dial::connect(&rtmp.endpoint, rtmp.tls, guard).await.map_err(|error| OpenError::dial(&error))?;
        let client = Client::new(rtmp, Purpose::Play).map_err(OpenError::passing)?;
        let mut connection = Connection { stream, client };
        let events = timeout(BEGINNING, connection.begin()).await;
        let events = events.map_err(|_| OpenError::passing("the server does not answer"))??;
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
    /// Sends what is to be sent and reads what comes; nothing once the server has hung up.
    async fn turn(&mut self) -> Result<Option<Vec<ClientEvent>>, String> {
        let output = self.client.output();
        self.stream.write_all(&output).await.map_err(|_| "the connection broke off")?;
        let mut bytes = vec![0; READ];
        match self.stream.read(&mut bytes).await {
            Ok(0) => Ok(None),
            Ok(length) => self.client.input(&bytes[..length]).map(Some).map_err(|error| error.to_string()),
            Err(_) => Err("the connection broke off".to_owned()),
        }
    }

    /// Talks until the server plays; gives what it has sent with that.
    async fn begin(&mut self) -> Result<Vec<ClientEvent>, OpenError> {
        loop {
            let events = self.turn().await.map_err(OpenError::passing)?;
            let mut events = events.ok_or_else(|| OpenError::passing("the server hung up"))?;
            if let Some(ClientEvent::Refused(why)) = events.iter().find(|e| matches!(e, ClientEvent::Refused(_))) {
                return Err(OpenError::passing(format!("the server refuses: {why}")));
            }
            let begins = |event: &ClientEvent| matches!(event, ClientEvent::Ready | ClientEvent::Media(_));
            if let Some(at) = events.iter().position(begins) {
                return Ok(events.split_off(at));
            }
        }
    }

    /// Feeds what the server plays until it ends.
    async fn play(mut self, mut events: Vec<ClientEvent>, feeder: &Feeder) -> Result<(), String> {
        let mut tags = Tags::default();
        while !feeder.is_over() {
            for event in events {
                match event {
                    ClientEvent::Ready => {}
                    ClientEvent::Refused(why) => return Err(format!("the server ends it: {why}")),
                    ClientEvent::Media(media) => tags.take(media, feeder)?,
                }
            }
            let Some(next) = self.turn().await? else { return Ok(()) };
            events = next;
        }
        Ok(())
    }
}

/// Turns tags into frames with times.
#[derive(Default)]
pub(super) struct Tags {
    reader: VideoReader,
    video: Option<Feed>,
    audio: Option<(Feed, Vec<u8>)>,
    clock: Clock,
    /// A keyframe has come.
    keyed: bool,
}

impl Tags {
    /// Takes what was sent.
    ///
    /// # Errors
    /// In words: it cannot be played.
    pub(super) fn take(&mut self, media: Media, feeder: &Feeder) -> Result<(), String> {
        match media {
            Media::Video { time_ms, tag } => self.picture(time_ms, tag, feeder),
            Media::Audio { time_ms, tag } => self.sound(time_ms, tag, feeder),
        }
    }

    fn picture(&mut self, time_ms: u32, tag: bytes::Bytes, feeder: &Feeder) -> Result<(), String> {
        let time = self.clock.unwrap(time_ms);
        let VideoTag::Frame(frame) = self.reader.read(tag).map_err(|error| error.to_string())? else { return Ok(()) };
        self.keyed |= frame.keyframe;
        if !self.keyed {
            return Ok(());
        }
        let feed = match &self.video {
            Some(feed) => feed,
            None => self.video.insert(feeder.open(&FeedFormat::H264).map_err(|error| error.to_string())?),
        };
        // What is over is not fed: the loop around sees that.
        let _taken = feed.push(frame.access_unit, millis(time + i64::from(frame.composition_ms)));
        Ok(())
    }

    fn sound(&mut self, time_ms: u32, tag: bytes::Bytes, feeder: &Feeder) -> Result<(), String> {
        let time = self.clock.unwrap(time_ms);
        match read_audio(tag).map_err(|error| error.to_string())? {
            AudioTag::Config(config) => match &self.audio {
                Some((_, known)) if known[..] != config[..] => return Err("the sound has changed its format".into()),
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

/// Unwraps times of 32 bits, and counts from the first.
#[derive(Debug, Default)]
struct Clock(Option<(i64, u32)>);

impl Clock {
    fn unwrap(&mut self, time_ms: u32) -> i64 {
        let unwrapped = match self.0 {
            None => MARGIN,
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
    fn times_begin_anywhere_and_wrap() {
        let mut clock = Clock::default();
        assert_eq!(clock.unwrap(u32::MAX - 10), MARGIN);
        assert_eq!(clock.unwrap(29), MARGIN + 40);
        assert_eq!(clock.unwrap(9), MARGIN + 20, "sound and pictures take turns");
        assert_eq!(millis(-5), Duration::ZERO);
    }
}
