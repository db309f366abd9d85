//! One connection to an RTMP server.
//!
//! Owns: the connection and its timeouts. Does not know: RTMP messages ([`crate::rtmp`]), reconnects.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::progress::Progress;
use super::queue::{Body, Piece};
use super::sender::{Outcome, REFUSED_WITHIN, Sender};
use crate::codec::aac::{AUDIO_SPECIFIC_CONFIG, DEFAULT_BITRATE};
use crate::destination::Rtmp;
use crate::dial::{self, Stream};
use crate::rtmp::flv::{self, AvcConfig};
use crate::rtmp::{Client, ClientEvent, Media, Metadata, Purpose, RtmpError, VideoMetadata};
use crate::time::{self, Timestamp};

/// Timeout until the server accepts the stream.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Size of a read in bytes; a publisher receives little.
const READ_BUFFER: usize = 16 << 10;

impl From<RtmpError> for Outcome {
    fn from(error: RtmpError) -> Self {
        Self::Disconnected(error.to_string())
    }
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        Self::Disconnected(match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the server closed the connection".to_owned()
            }
            _ => format!("connection lost: {error}"),
        })
    }
}

/// Publishes until the media or the connection ends.
pub(super) async fn send(server: &Rtmp, sender: &Sender, progress: &mut Progress) -> Outcome {
    match publish(server, sender, progress).await {
        Ok(()) => Outcome::Finished,
        Err(ended) => ended,
    }
}

/// The sending side of a connection.
struct Publisher {
    client: Client,
    writer: WriteHalf<Box<dyn Stream>>,
    /// Parameter sets sent last.
    config: Option<AvcConfig>,
    /// The AAC sequence header was sent.
    audio_config_sent: bool,
}

async fn publish(server: &Rtmp, sender: &Sender, progress: &mut Progress) -> Result<(), Outcome> {
    let send_queue = &sender.send_queue;
    let stream = tokio::select! {
        stream = dial::connect(&server.endpoint, server.tls, &sender.guard) => stream?,
        () = send_queue.finished() => return Ok(()),
    };
    let (mut reader, writer) = tokio::io::split(stream);
    let mut publisher =
        Publisher { client: Client::new(server, Purpose::Publish)?, writer, config: None, audio_config_sent: false };
    let start_timeout = sleep(START_TIMEOUT);
    tokio::pin!(start_timeout);
    let mut bytes = vec![0; READ_BUFFER];
    let mut accepted: Option<Timestamp> = None;
    loop {
        publisher.flush().await.map_err(|error| closed(accepted, error))?;
        let ready = publisher.client.is_ready();
        tokio::select! {
            // Received messages first: one may be a refusal.
            biased;
            length = read(&mut reader, &mut bytes) => {
                let length = match length {
                    Ok(length) => length,
                    // Some servers refuse by closing the connection.
                    Err(_) if publisher.client.has_requested() && accepted.is_none() => {
                        return Err(refused("it closed the connection"));
                    }
                    Err(error) => return Err(closed(accepted, error.into())),
                };
                for event in publisher.client.input(&bytes[..length])? {
                    match event {
                        ClientEvent::Ready => {
                            accepted = Some(time::now());
                            publisher.client.metadata(&metadata(sender))?;
                            send_queue.with(|queue| queue.set_open(true));
                        }
                        ClientEvent::Refused(words) => return Err(refused(&words)),
                        ClientEvent::Media(_) => {}
                    }
                }
            }
            piece = send_queue.next(), if ready => {
                let Some(piece) = piece else {
                    publisher.client.stop()?;
                    return publisher.flush().await;
                };
                if let Some(due) = progress.due(&piece) {
                    publisher.piece(&piece, due)?;
                    publisher.flush().await.map_err(|error| closed(accepted, error))?;
                    progress.sent(&piece, piece.size());
                }
            }
            () = send_queue.finished(), if !ready => return Ok(()),
            () = &mut start_timeout, if !ready => {
                return Err(Outcome::Disconnected("the server did not accept the stream in time".to_owned()));
            }
        }
    }
}

/// The outcome of a connection that was lost; `accepted` is when the server accepted the stream. A connection that is
/// lost within [`REFUSED_WITHIN`] of that was refused.
fn closed(accepted: Option<Timestamp>, error: Outcome) -> Outcome {
    match error {
        Outcome::Disconnected(_) if accepted.is_some_and(|at| time::now().since(at) < REFUSED_WITHIN) => {
            refused("it closed the connection")
        }
        other => other,
    }
}

fn refused(words: &str) -> Outcome {
    let hint = "check the stream key, and that it is not in use by another sender";
    Outcome::Refused(format!("the server refuses the stream ({words}): {hint}"))
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
    /// Queues the messages of a piece.
    fn piece(&mut self, piece: &Piece, due: Duration) -> Result<(), Outcome> {
        let time_ms = due.as_millis() as u32;
        match piece {
            Piece::Video { keyframe, body: Body::AccessUnit(access_unit), .. } => {
                if *keyframe
                    && let Some(config) = AvcConfig::of(access_unit)
                    && self.config.as_ref() != Some(&config)
                {
                    self.client.send(Media::Video { time_ms, tag: flv::video_config(&config) })?;
                    self.config = Some(config);
                }
                self.client.send(Media::Video { time_ms, tag: flv::video_frame(access_unit, *keyframe, 0) })?;
            }
            Piece::Audio { data, .. } => {
                if !self.audio_config_sent {
                    self.audio_config_sent = true;
                    self.client.send(Media::Audio { time_ms, tag: flv::audio_config(&AUDIO_SPECIFIC_CONFIG) })?;
                }
                self.client.send(Media::Audio { time_ms, tag: flv::audio_frame(data) })?;
            }
            Piece::Video { body: Body::Packets(_), .. } => {}
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Outcome> {
        let output = self.client.output();
        if output.is_empty() {
            return Ok(());
        }
        let writing = async {
            self.writer.write_all(&output).await?;
            self.writer.flush().await
        };
        let timed_out = || Outcome::Disconnected(format!("the server has not read for {} s", WRITE_TIMEOUT.as_secs()));
        Ok(timeout(WRITE_TIMEOUT, writing).await.map_err(|_| timed_out())??)
    }
}
