//! Our side of a connection to an RTMP server: publishing, or playing.

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType, StreamMetadata,
};
use rml_rtmp::time::RtmpTimestamp;

use super::gate::Gate;
use super::{Media, Metadata, RtmpError, guarded};
use crate::destination::Rtmp;

/// What we want of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To send a stream.
    Publish,
    /// To receive one.
    Play,
}

/// What a server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// It lets us publish, or plays.
    Ready,
    /// It refuses, or ends what it granted, with its own code or words.
    Refused(String),
    /// It sent sound or a picture.
    Media(Media),
}

/// One connection to a server, without its socket. Whatever was called, [`Client::output`] is sent after it.
pub struct Client {
    handshake: Option<Handshake>,
    session: ClientSession,
    gate: Gate,
    purpose: Purpose,
    app: String,
    key: String,
    output: Vec<u8>,
    asked: bool,
    ready: bool,
}

impl Client {
    /// Begins: what is to be sent first is in [`Client::output`].
    ///
    /// # Errors
    /// A bug in the crate.
    pub fn new(server: &Rtmp, purpose: Purpose) -> Result<Self, RtmpError> {
        guarded(|| {
            let mut handshake = Handshake::new(PeerType::Client);
            let output = handshake.generate_outbound_p0_and_p1()?;
            let mut config = ClientSessionConfig::new();
            config.flash_version = "FMLE/3.0 (compatible; commingle)".to_owned();
            config.tc_url = Some(server.tc_url());
            let (mut session, results) = ClientSession::new(config)?;
            debug_assert!(results.is_empty(), "the crate says nothing before it is asked");
            session.handle_input(&Gate::preamble())?;
            Ok(Self {
                handshake: Some(handshake),
                session,
                gate: Gate::new(),
                purpose,
                app: server.app.clone(),
                key: server.key.expose().to_owned(),
                output,
                asked: false,
                ready: false,
            })
        })
    }

    /// Takes what the server sent.
    ///
    /// # Errors
    /// The connection is over.
    pub fn input(&mut self, bytes: &[u8]) -> Result<Vec<ClientEvent>, RtmpError> {
        guarded(|| {
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
        let passed = self.gate.push(bytes)?;
        self.output.extend(passed.reply);
        let results = self.session.handle_input(&passed.session)?;
        self.results(results)
    }

    fn results(&mut self, results: Vec<ClientSessionResult>) -> Result<Vec<ClientEvent>, RtmpError> {
        let mut events = Vec::new();
        // What an event makes us ask goes behind everything the crate says by itself.
        let mut asked = Vec::new();
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => self.output.extend(packet.bytes),
                ClientSessionResult::RaisedEvent(event) => self.event(event, &mut events, &mut asked)?,
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        for result in asked {
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
        asked: &mut Vec<ClientSessionResult>,
    ) -> Result<(), RtmpError> {
        match event {
            ClientSessionEvent::ConnectionRequestAccepted => {
                self.asked = true;
                asked.push(match self.purpose {
                    Purpose::Publish => self.session.request_publishing(self.key.clone(), PublishRequestType::Live)?,
                    Purpose::Play => self.session.request_playback(self.key.clone())?,
                });
            }
            ClientSessionEvent::ConnectionRequestRejected { description } => {
                events.push(ClientEvent::Refused(self.hidden(description)));
            }
            ClientSessionEvent::PublishRequestAccepted | ClientSessionEvent::PlaybackRequestAccepted => {
                self.ready = true;
                events.push(ClientEvent::Ready);
            }
            ClientSessionEvent::UnhandleableOnStatusCode { code } if refuses(&code) => {
                events.push(ClientEvent::Refused(self.hidden(code)));
            }
            // Some servers refuse by a result of no transaction that we know.
            ClientSessionEvent::UnknownTransactionResultReceived { additional_values, .. } if !self.ready => {
                let objects = additional_values.into_iter().filter_map(|value| value.get_object_properties());
                for mut object in objects {
                    let mut text = |name| object.remove(name).and_then(|value| value.get_string());
                    let (level, code) = (text("level"), text("code").unwrap_or_default());
                    if level.is_some_and(|level| level.ends_with("error")) || refuses(&code) {
                        events.push(ClientEvent::Refused(self.hidden(code)));
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

    /// A server's words without our stream key, which some repeat.
    fn hidden(&self, words: String) -> String {
        let (name, _) = self.key.split_once('?').unwrap_or((&self.key, ""));
        let words = words.replace(&self.key, "…").replace(name, "…");
        words.chars().filter(|c| !c.is_control()).take(200).collect()
    }

    /// Whether the server was asked to let us publish or play. One that then closes the connection means no.
    pub fn has_asked(&self) -> bool {
        self.asked
    }

    /// Whether media may be sent.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Says what is coming.
    ///
    /// # Errors
    /// The server has not let us publish.
    pub fn metadata(&mut self, metadata: &Metadata) -> Result<(), RtmpError> {
        let mut all = StreamMetadata::new();
        all.encoder = Some(concat!("commingle/", env!("CARGO_PKG_VERSION")).to_owned());
        if let Some(video) = &metadata.video {
            all.video_width = Some(video.size.width);
            all.video_height = Some(video.size.height);
            all.video_frame_rate = Some(video.fps as f32);
            all.video_bitrate_kbps = Some(video.kbps);
            // AVC in FLV.
            all.video_codec_id = Some(7);
        }
        if let Some(kbps) = metadata.audio_kbps {
            all.audio_bitrate_kbps = Some(kbps);
            all.audio_sample_rate = Some(crate::media::AUDIO_RATE);
            all.audio_channels = Some(1);
            all.audio_is_stereo = Some(false);
            // AAC in FLV.
            all.audio_codec_id = Some(10);
        }
        guarded(|| {
            let result = self.session.publish_metadata(&all)?;
            self.results(vec![result]).map(drop)
        })
    }

    /// Sends a tag of the module [`flv`](super::flv).
    ///
    /// # Errors
    /// The server has not let us publish.
    pub fn send(&mut self, media: Media) -> Result<(), RtmpError> {
        guarded(|| {
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

    /// Says goodbye.
    ///
    /// # Errors
    /// A bug in the crate.
    pub fn stop(&mut self) -> Result<(), RtmpError> {
        guarded(|| {
            let results = match self.purpose {
                Purpose::Publish => self.session.stop_publishing()?,
                Purpose::Play => self.session.stop_playback()?,
            };
            self.results(results).map(drop)
        })
    }

    /// What is to be sent now.
    pub fn output(&mut self) -> Bytes {
        std::mem::take(&mut self.output).into()
    }
}

/// Whether a status code says no, or that what was granted is over. Others are only news.
fn refuses(code: &str) -> bool {
    let ends = ["BadName", "Failed", "Rejected", "Denied", "StreamNotFound", "InvalidApp", "Unauthorized", "Closed"];
    let over = [
        "NetStream.Play.Stop",
        "NetStream.Play.Complete",
        "NetStream.Play.UnpublishNotify",
        "NetStream.Unpublish.Success",
    ];
    ends.iter().any(|end| code.ends_with(end)) || over.contains(&code)
}
