//! Our side of a connection that an encoder made to us, to publish.

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{ServerSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult};

use super::gate::{self, Gate};
use super::{Media, RtmpError, guarded};
use crate::secret::Secret;

/// Commands that one connection may send before it publishes; encoders send less than ten.
const COMMANDS_MAX: u32 = 50;

/// What an encoder did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// It wants to publish: [`Server::accept`] or [`Server::refuse`] it.
    Publish {
        /// Which application.
        app: String,
        /// Under which stream key, with its query.
        key: Secret,
    },
    /// It sent sound or a picture.
    Media(Media),
    /// It is done.
    Finished,
}

/// One connection of an encoder, without its socket. Whatever was called, [`Server::output`] is sent after it.
pub struct Server {
    handshake: Option<Handshake>,
    session: ServerSession,
    gate: Gate,
    output: Vec<u8>,
    /// What the session says first, to be sent behind the handshake.
    greeting: Vec<u8>,
    /// The request to publish that nobody answered yet.
    request: Option<u32>,
    commands: u32,
}

impl Server {
    /// A connection that was just made.
    ///
    /// # Errors
    /// A bug in the crate.
    pub fn new() -> Result<Self, RtmpError> {
        guarded(|| {
            let mut config = ServerSessionConfig::new();
            // Encoders acknowledge so often, and ask for nothing else that depends on it.
            config.window_ack_size = 2_500_000;
            let (mut session, results) = ServerSession::new(config)?;
            session.handle_input(&Gate::preamble())?;
            let greeting = results.into_iter().filter_map(|result| match result {
                ServerSessionResult::OutboundResponse(packet) => Some(packet.bytes),
                _ => None,
            });
            Ok(Self {
                handshake: Some(Handshake::new(PeerType::Server)),
                session,
                gate: Gate::new(),
                output: Vec::new(),
                greeting: greeting.flatten().collect(),
                request: None,
                commands: 0,
            })
        })
    }

    /// Takes what the encoder sent.
    ///
    /// # Errors
    /// The connection is over.
    pub fn input(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, RtmpError> {
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
                    self.output.append(&mut self.greeting);
                    self.chunks(&remaining_bytes)
                }
            }
        })
    }

    fn chunks(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, RtmpError> {
        let passed = self.gate.push(bytes)?;
        self.output.extend(passed.reply);
        let results = self.session.handle_input(&passed.session)?;
        self.results(results)
    }

    fn results(&mut self, results: Vec<ServerSessionResult>) -> Result<Vec<ServerEvent>, RtmpError> {
        let mut events = Vec::new();
        for result in results {
            match result {
                ServerSessionResult::OutboundResponse(packet) => {
                    self.answered()?;
                    self.output.extend(packet.bytes);
                }
                ServerSessionResult::RaisedEvent(event) => self.event(event, &mut events)?,
                ServerSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        Ok(events)
    }

    /// Each answer keeps something in the session for good, so there is an end to them.
    fn answered(&mut self) -> Result<(), RtmpError> {
        self.commands += 1;
        if self.commands > COMMANDS_MAX { Err(RtmpError::Commands) } else { Ok(()) }
    }

    fn event(&mut self, event: ServerSessionEvent, events: &mut Vec<ServerEvent>) -> Result<(), RtmpError> {
        match event {
            ServerSessionEvent::ConnectionRequested { request_id, .. } => {
                let results = self.session.accept_request(request_id)?;
                events.extend(self.results(results)?);
            }
            ServerSessionEvent::PublishStreamRequested { request_id, app_name, stream_key, .. } => {
                self.answered()?;
                self.request = Some(request_id);
                events.push(ServerEvent::Publish { app: app_name, key: Secret::from(stream_key) });
            }
            ServerSessionEvent::PlayStreamRequested { request_id, .. } => {
                let results =
                    self.session.reject_request(request_id, "NetStream.Play.Failed", "nothing is played here")?;
                events.extend(self.results(results)?);
            }
            ServerSessionEvent::VideoDataReceived { timestamp, data, .. } => {
                events.push(ServerEvent::Media(Media::Video { time_ms: timestamp.value, tag: data }));
            }
            ServerSessionEvent::AudioDataReceived { timestamp, data, .. } => {
                events.push(ServerEvent::Media(Media::Audio { time_ms: timestamp.value, tag: data }));
            }
            ServerSessionEvent::PublishStreamFinished { .. } => events.push(ServerEvent::Finished),
            ServerSessionEvent::UnhandleableAmf0Command { .. } => self.answered()?,
            _ => {}
        }
        Ok(())
    }

    /// Lets the encoder publish.
    ///
    /// # Errors
    /// It did not ask.
    pub fn accept(&mut self) -> Result<(), RtmpError> {
        let request = self.request.take().ok_or(RtmpError::NotAsked)?;
        guarded(|| {
            let results = self.session.accept_request(request)?;
            self.results(results).map(drop)
        })
    }

    /// Refuses it, in words for its user. The connection is closed after that.
    ///
    /// # Errors
    /// It did not ask.
    pub fn refuse(&mut self, why: &str) -> Result<(), RtmpError> {
        // The crate would answer a call that the encoder did not make; encoders wait for a status.
        self.request.take().ok_or(RtmpError::NotAsked)?;
        self.output.extend(status("error", "NetStream.Publish.BadName", why));
        Ok(())
    }

    /// What is to be sent now.
    pub fn output(&mut self) -> Bytes {
        std::mem::take(&mut self.output).into()
    }
}

/// The command `onStatus` (section 7.2.2), as one chunk on the stream that encoders make first.
fn status(level: &str, code: &str, description: &str) -> Vec<u8> {
    let mut command = Vec::new();
    let text = |command: &mut Vec<u8>, text: &str| {
        let text = &text.as_bytes()[..text.floor_char_boundary(1000)];
        command.extend((text.len() as u16).to_be_bytes());
        command.extend(text);
    };
    command.push(2);
    text(&mut command, "onStatus");
    // Of no transaction; no object; then an object of texts.
    command.extend([0; 9]);
    command.extend([5, 3]);
    for (name, value) in [("level", level), ("code", code), ("description", description)] {
        text(&mut command, name);
        command.push(2);
        text(&mut command, value);
    }
    command.extend([0, 0, 9]);
    let mut chunk = Vec::new();
    gate::put_message(&mut chunk, gate::OWN_STREAM, gate::COMMAND, 0, 1, &command);
    chunk
}
