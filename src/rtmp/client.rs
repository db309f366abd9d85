//! Our side of a connection to an RTMP server, to publish or to play.
//!
//! Owns: handshake, commands and media messages of a client. Does not know: sockets. In: received bytes and media. Out:
//! bytes to send, and [`ClientEvent`]s.

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType, StreamMetadata,
};
use rml_rtmp::time::RtmpTimestamp;

use super::filter::MessageFilter;
use super::{Media, Metadata, RtmpError, catch_panics};
use crate::destination::Rtmp;

/// Purpose of a connection to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Send a stream.
    Publish,
    /// Receive a stream.
    Play,
}

/// An event from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server accepted the request to publish or play.
    Ready,
    /// The server refused the request or ended the stream; its status code or description.
    Refused(String),
    /// An audio or video message.
    Media(Media),
}

/// One connection to a server, without its socket. Send [`Client::output`] after every call.
pub struct Client {
    handshake: Option<Handshake>,
    session: ClientSession,
    filter: MessageFilter,
    purpose: Purpose,
    app: String,
    key: String,
    output: Vec<u8>,
    requested: bool,
    ready: bool,
}

impl Client {
    /// Starts the handshake.
    ///
    /// # Errors
    /// [`RtmpError::Bug`].
    pub fn new(server: &Rtmp, purpose: Purpose) -> Result<Self, RtmpError> {
        catch_panics(|| {
            let mut handshake = Handshake::new(PeerType::Client);
            let output = handshake.generate_outbound_p0_and_p1()?;
            let mut config = ClientSessionConfig::new();
            config.flash_version = "FMLE/3.0 (compatible; commingle)".to_owned();
            config.tc_url = Some(server.tc_url());
            let (mut session, results) = ClientSession::new(config)?;
            debug_assert!(results.is_empty(), "a new client session has no output");
            session.handle_input(&MessageFilter::preamble())?;
            Ok(Self {
                handshake: Some(handshake),
                session,
                filter: MessageFilter::new(),
                purpose,
                app: server.app.expose().to_owned(),
                key: server.key.expose().to_owned(),
                output,
                requested: false,
                ready: false,
            })
        })
    }

    /// Processes bytes from the server.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn input(&mut self, bytes: &[u8]) -> Result<Vec<ClientEvent>, RtmpError> {
        catch_panics(|| {
            let Some(handshake) = &mut self.handshake else { return self.chunks(bytes) };
            match handshake.process_bytes(bytes)? {
                HandshakeProcessResult::InProgress { response_bytes } => {
                    self.output.extend(response_bytes);
                    Ok(Vec::new())
                }
                HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                    self.handshake = None;
                    self.output.extend(response_bytes);
                    let connect = self.session.request_connection(self.app.clone())?;
                    self.results(vec![connect])?;
                    self.chunks(&remaining_bytes)
                }
            }
        })
    }

    fn chunks(&mut self, bytes: &[u8]) -> Result<Vec<ClientEvent>, RtmpError> {
        let filtered = self.filter.push(bytes)?;
        self.output.extend(filtered.reply);
        let results = self.session.handle_input(&filtered.session)?;
        self.results(results)
    }

    fn results(&mut self, results: Vec<ClientSessionResult>) -> Result<Vec<ClientEvent>, RtmpError> {
        let mut events = Vec::new();
        // Requests caused by events are sent after the other responses of the session.
        let mut requested = Vec::new();
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => self.output.extend(packet.bytes),
                ClientSessionResult::RaisedEvent(event) => self.event(event, &mut events, &mut requested)?,
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        for result in requested {
            if let ClientSessionResult::OutboundResponse(packet) = result {
                self.output.extend(packet.bytes);
            }
        }
        Ok(events)
    }

    fn event(
        &mut self,
        event: ClientSessionEvent,
        events: &mut Vec<ClientEvent>,
        requested: &mut Vec<ClientSessionResult>,
    ) -> Result<(), RtmpError> {
        match event {
            ClientSessionEvent::ConnectionRequestAccepted => {
                self.requested = true;
                requested.push(match self.purpose {
                    Purpose::Publish => self.session.request_publishing(self.key.clone(), PublishRequestType::Live)?,
                    Purpose::Play => self.session.request_playback(self.key.clone())?,
                });
            }
            ClientSessionEvent::ConnectionRequestRejected { description } => {
                events.push(ClientEvent::Refused(self.redacted(description)));
            }
            ClientSessionEvent::PublishRequestAccepted | ClientSessionEvent::PlaybackRequestAccepted => {
                self.ready = true;
                events.push(ClientEvent::Ready);
            }
            ClientSessionEvent::UnhandleableOnStatusCode { code } if is_rejection(&code) => {
                events.push(ClientEvent::Refused(self.redacted(code)));
            }
            // Some servers refuse with a result of an unknown transaction.
            ClientSessionEvent::UnknownTransactionResultReceived { additional_values, .. } if !self.ready => {
                let objects = additional_values.into_iter().filter_map(|value| value.get_object_properties());
                for mut object in objects {
                    let mut text = |name| object.remove(name).and_then(|value| value.get_string());
                    let (level, code) = (text("level"), text("code").unwrap_or_default());
                    if level.is_some_and(|level| level.ends_with("error")) || is_rejection(&code) {
                        events.push(ClientEvent::Refused(self.redacted(code)));
                    }
                }
            }
            ClientSessionEvent::VideoDataReceived { timestamp, data } => {
                events.push(ClientEvent::Media(Media::Video { time_ms: timestamp.value, tag: data }));
            }
            ClientSessionEvent::AudioDataReceived { timestamp, data } => {
                events.push(ClientEvent::Media(Media::Audio { time_ms: timestamp.value, tag: data }));
            }
            _ => {}
        }
        Ok(())
    }

    /// A server's message without our stream key, which some servers repeat.
    pub(super) fn redacted(&self, words: String) -> String {
        let (name, _) = self.key.split_once('?').unwrap_or((&self.key, ""));
        let (application, query) = self.app.split_once('?').unwrap_or((&self.app, ""));
        // Without a key, the application may be one.
        let application = if self.key.is_empty() { application } else { "" };
        let secrets = [&*self.key, name, query, application].into_iter().filter(|secret| !secret.is_empty());
        let words = secrets.fold(words, |words, secret| words.replace(secret, "…"));
        words.chars().filter(|c| !c.is_control()).take(200).collect()
    }

    /// Whether the request to publish or play was sent. A server that then closes the connection refuses it.
    pub fn has_requested(&self) -> bool {
        self.requested
    }

    /// Whether the server accepted the request.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Sends `onMetaData`.
    ///
    /// # Errors
    /// [`RtmpError::Client`] unless the client is ready.
    pub fn metadata(&mut self, metadata: &Metadata) -> Result<(), RtmpError> {
        let mut all = StreamMetadata::new();
        all.encoder = Some(concat!("commingle/", env!("CARGO_PKG_VERSION")).to_owned());
        if let Some(video) = &metadata.video {
            all.video_width = Some(video.size.width);
            all.video_height = Some(video.size.height);
            all.video_frame_rate = Some(video.fps as f32);
            all.video_bitrate_kbps = Some(video.kbps);
            // FLV codec id of AVC.
            all.video_codec_id = Some(7);
        }
        if let Some(kbps) = metadata.audio_kbps {
            all.audio_bitrate_kbps = Some(kbps);
            all.audio_sample_rate = Some(crate::media::AUDIO_RATE);
            all.audio_channels = Some(1);
            all.audio_is_stereo = Some(false);
            // FLV codec id of AAC.
            all.audio_codec_id = Some(10);
        }
        catch_panics(|| {
            let result = self.session.publish_metadata(&all)?;
            self.results(vec![result]).map(drop)
        })
    }

    /// Sends an audio or video tag, made by [`flv`](super::flv).
    ///
    /// # Errors
    /// [`RtmpError::Client`] unless the client is ready.
    pub fn send(&mut self, media: Media) -> Result<(), RtmpError> {
        catch_panics(|| {
            let result = match media {
                Media::Video { time_ms, tag } => {
                    self.session.publish_video_data(tag, RtmpTimestamp::new(time_ms), false)?
                }
                Media::Audio { time_ms, tag } => {
                    self.session.publish_audio_data(tag, RtmpTimestamp::new(time_ms), false)?
                }
            };
            self.results(vec![result]).map(drop)
        })
    }

    /// Sends the commands that end the stream.
    ///
    /// # Errors
    /// [`RtmpError::Client`] or [`RtmpError::Bug`].
    pub fn stop(&mut self) -> Result<(), RtmpError> {
        catch_panics(|| {
            let results = match self.purpose {
                Purpose::Publish => self.session.stop_publishing()?,
                Purpose::Play => self.session.stop_playback()?,
            };
            self.results(results).map(drop)
        })
    }

    /// Takes the bytes to send.
    pub fn output(&mut self) -> Bytes {
        std::mem::take(&mut self.output).into()
    }
}

/// Whether a status code means that the request is refused or the stream has ended. Other codes are informational.
fn is_rejection(code: &str) -> bool {
    let ends = ["BadName", "Failed", "Rejected", "Denied", "StreamNotFound", "InvalidApp", "Unauthorized", "Closed"];
    let ended = [
        "NetStream.Play.Stop",
        "NetStream.Play.Complete",
        "NetStream.Play.UnpublishNotify",
        "NetStream.Unpublish.Success",
    ];
    ends.iter().any(|end| code.ends_with(end)) || ended.contains(&code)
}
