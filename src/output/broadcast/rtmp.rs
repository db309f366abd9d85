//! One connection to an RTMP server.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::progress::Progress;
use super::queue::{Body, Piece};
use super::sender::{Ended, Sender};
use crate::codec::aac::{AUDIO_SPECIFIC_CONFIG, DEFAULT_BITRATE};
use crate::destination::Rtmp;
use crate::dial::{self, Stream};
use crate::rtmp::flv::{self, AvcConfig};
use crate::rtmp::{Client, ClientEvent, Media, Metadata, Purpose, RtmpError, VideoMetadata};

/// How long a server may take to let us publish.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may take no byte while some wait.
const STUCK: Duration = Duration::from_secs(10);
/// Bytes read at once: a publisher hears little.
const READ: usize = 16 << 10;

impl From<RtmpError> for Ended {
    fn from(error: RtmpError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Broken(match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the server closed the connection".to_owned()
            }
            _ => format!("the connection broke: {error}"),
        })
    }
}

/// Publishes until it ends.
pub(super) async fn send(server: &Rtmp, sender: &Sender, progress: &mut Progress) -> Ended {
    match publish(server, sender, progress).await {
        Ok(()) => Ended::Finished,
        Err(ended) => ended,
    }
}

/// What goes out on a connection.
struct Publisher {
    client: Client,
    writer: WriteHalf<Box<dyn Stream>>,
    /// The parameter sets that the server has.
    config: Option<AvcConfig>,
    /// The server knows of the sound.
    told: bool,
}

async fn publish(server: &Rtmp, sender: &Sender, progress: &mut Progress) -> Result<(), Ended> {
    let feed = &sender.feed;
    let stream = tokio::select! {
        stream = dial::connect(&server.endpoint, server.tls, &sender.guard) => stream?,
        () = feed.finished() => return Ok(()),
    };
    let (mut reader, writer) = tokio::io::split(stream);
    let mut publisher = Publisher { client: Client::new(server, Purpose::Publish)?, writer, config: None, told: false };
    let patience = sleep(PATIENCE);
    tokio::pin!(patience);
    let mut bytes = vec![0; READ];
    loop {
        publisher.flush().await?;
        let ready = publisher.client.is_ready();
        tokio::select! {
            // What the server says comes first: it may say no.
            biased;
            length = read(&mut reader, &mut bytes) => {
                let length = match length {
                    Ok(length) => length,
                    // Some servers refuse without a word.
                    Err(_) if publisher.client.has_requested() && !progress.is_live() => {
                        return Err(refused("it closed the connection"));
                    }
                    Err(error) => return Err(error.into()),
                };
                for event in publisher.client.input(&bytes[..length])? {
                    match event {
                        ClientEvent::Ready => {
                            publisher.client.metadata(&metadata(sender))?;
                            feed.with(|queue| queue.set_open(true));
                        }
                        ClientEvent::Refused(words) => return Err(refused(&words)),
                        ClientEvent::Media(_) => {}
                    }
                }
            }
            piece = feed.next(), if ready => {
                let Some(piece) = piece else {
                    publisher.client.stop()?;
                    return publisher.flush().await;
                };
                if let Some(due) = progress.due(&piece) {
                    publisher.piece(&piece, due)?;
                    publisher.flush().await?;
                    progress.sent(&piece, piece.size());
                }
            }
            () = feed.finished(), if !ready => return Ok(()),
            () = &mut patience, if !ready => {
                return Err(Ended::Broken("the server does not answer".to_owned()));
            }
        }
    }
}

fn refused(words: &str) -> Ended {
    let hint = "is the stream key right, and nobody else sending with it?";
    Ended::Refused(format!("the server refuses the stream ({words}): {hint}"))
}

/// Reads at least one byte.
async fn read(reader: &mut ReadHalf<Box<dyn Stream>>, bytes: &mut [u8]) -> io::Result<usize> {
    match reader.read(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

fn metadata(sender: &Sender) -> Metadata {
    let video = VideoMetadata { size: sender.stream.size, fps: sender.stream.fps, kbps: sender.stream.bitrate_kbps };
    Metadata { video: Some(video), audio_kbps: Some(DEFAULT_BITRATE / 1000) }
}

impl Publisher {
    /// Makes messages of a piece.
    fn piece(&mut self, piece: &Piece, due: Duration) -> Result<(), Ended> {
        let time_ms = due.as_millis() as u32;
        match piece {
            Piece::Video { keyframe, body: Body::Whole(access_unit), .. } => {
                if *keyframe
                    && let Some(config) = AvcConfig::of(access_unit)
                    && self.config.as_ref() != Some(&config)
                {
                    self.client.send(Media::Video { time_ms, tag: flv::video_config(&config) })?;
                    self.config = Some(config);
                }
                self.client.send(Media::Video { time_ms, tag: flv::video_frame(access_unit, *keyframe, 0) })?;
            }
            Piece::Sound { data, .. } => {
                if !self.told {
                    self.told = true;
                    self.client.send(Media::Audio { time_ms, tag: flv::audio_config(&AUDIO_SPECIFIC_CONFIG) })?;
                }
                self.client.send(Media::Audio { time_ms, tag: flv::audio_frame(data) })?;
            }
            Piece::Video { body: Body::Packets(_), .. } => {}
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        let output = self.client.output();
        if output.is_empty() {
            return Ok(());
        }
        let writing = async {
            self.writer.write_all(&output).await?;
            self.writer.flush().await
        };
        let stuck = || Ended::Broken(format!("the server has taken nothing for {} s", STUCK.as_secs()));
        Ok(timeout(STUCK, writing).await.map_err(|_| stuck())??)
    }
}
