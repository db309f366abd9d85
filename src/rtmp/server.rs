//! The server side of an RTMP connection, on which an encoder publishes a stream.
//!
//! Owns: handshake, commands and media messages of a server. Does not know: sockets, and which stream keys are valid.
//! In: received bytes. Out: bytes to send, and [`ServerEvent`]s.

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{ServerSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult};

use super::filter::{self, MessageFilter};
use super::{Media, RtmpError, catch_panics};
use crate::secret::Secret;

/// Most commands of one connection; encoders send fewer than ten.
const COMMANDS_MAX: u32 = 50;

/// An event on the connection from an encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// A request to publish: call [`Server::accept`] or [`Server::refuse`].
    Publish {
        /// Application name.
        app: String,
        /// Stream key with its query.
        key: Secret,
    },
    /// An audio or video message.
    Media(Media),
    /// The encoder ended the stream.
    Finished,
}

/// One connection from an encoder, without its socket. Send [`Server::output`] after every call.
pub struct Server {
    handshake: Option<Handshake>,
    session: ServerSession,
    filter: MessageFilter,
    output: Vec<u8>,
    /// The first messages of the session. They exist before the handshake, and are sent after it.
    initial_output: Vec<u8>,
    /// Id of the unanswered request to publish.
    request: Option<u32>,
    /// Commands so far, limited by [`COMMANDS_MAX`].
    commands: u32,
}

impl Server {
    /// A new connection, before the handshake.
    ///
    /// # Errors
    /// [`RtmpError::Bug`].
    pub fn new() -> Result<Self, RtmpError> {
        catch_panics(|| {
            let mut config = ServerSessionConfig::new();
            // In bytes. It only determines how often encoders acknowledge.
            config.window_ack_size = 2_500_000;
            let (mut session, results) = ServerSession::new(config)?;
            // `filter` joins the encoder's chunks: it gives each message to the session as one chunk.
            session.handle_input(&MessageFilter::preamble())?;
            let initial_output = results.into_iter().filter_map(|result| match result {
                ServerSessionResult::OutboundResponse(packet) => Some(packet.bytes),
                _ => None,
            });
            Ok(Self {
                handshake: Some(Handshake::new(PeerType::Server)),
                session,
                filter: MessageFilter::new(),
                output: Vec::new(),
                initial_output: initial_output.flatten().collect(),
                request: None,
                commands: 0,
            })
        })
    }

    /// Processes bytes from the encoder.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn input(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, RtmpError> {
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
                    self.output.append(&mut self.initial_output);
                    self.chunks(&remaining_bytes)
                }
            }
        })
    }

    /// Processes what follows the handshake: the chunk stream.
    fn chunks(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, RtmpError> {
        let filtered = self.filter.push(bytes)?;
        self.output.extend(filtered.reply);
        let results = self.session.handle_input(&filtered.session)?;
        self.results(results)
    }

    /// Appends the session's responses to the output, and returns its events.
    fn results(&mut self, results: Vec<ServerSessionResult>) -> Result<Vec<ServerEvent>, RtmpError> {
        let mut events = Vec::new();
        for result in results {
            match result {
                ServerSessionResult::OutboundResponse(packet) => {
                    self.count_command()?;
                    self.output.extend(packet.bytes);
                }
                ServerSessionResult::RaisedEvent(event) => self.event(event, &mut events)?,
                ServerSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        Ok(events)
    }

    /// Counts a command, or a response to one, and enforces the limit: the session keeps state for each of them.
    fn count_command(&mut self) -> Result<(), RtmpError> {
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
                self.count_command()?;
                self.request = Some(request_id);
                events.push(ServerEvent::Publish { app: app_name, key: Secret::from(stream_key) });
            }
            ServerSessionEvent::PlayStreamRequested { request_id, .. } => {
                let results =
                    self.session.reject_request(request_id, "NetStream.Play.Failed", "playing is not supported")?;
                events.extend(self.results(results)?);
            }
            ServerSessionEvent::VideoDataReceived { timestamp, data, .. } => {
                events.push(ServerEvent::Media(Media::Video { time_ms: timestamp.value, tag: data }));
            }
            ServerSessionEvent::AudioDataReceived { timestamp, data, .. } => {
                events.push(ServerEvent::Media(Media::Audio { time_ms: timestamp.value, tag: data }));
            }
            ServerSessionEvent::PublishStreamFinished { .. } => events.push(ServerEvent::Finished),
            ServerSessionEvent::UnhandleableAmf0Command { .. } => self.count_command()?,
            _ => {}
        }
        Ok(())
    }

    /// Accepts the request to publish.
    ///
    /// # Errors
    /// [`RtmpError::NoRequest`].
    pub fn accept(&mut self) -> Result<(), RtmpError> {
        let request = self.request.take().ok_or(RtmpError::NoRequest)?;
        catch_panics(|| {
            let results = self.session.accept_request(request)?;
            self.results(results).map(drop)
        })
    }

    /// Refuses the request to publish with a description that encoders show. Close the connection after that.
    ///
    /// # Errors
    /// [`RtmpError::NoRequest`].
    pub fn refuse(&mut self, why: &str) -> Result<(), RtmpError> {
        // `ServerSession::reject_request` would answer with `_error`, but encoders wait for `onStatus`.
        self.request.take().ok_or(RtmpError::NoRequest)?;
        self.output.extend(status("error", "NetStream.Publish.BadName", why));
        Ok(())
    }

    /// Takes the bytes to send.
    pub fn output(&mut self) -> Bytes {
        std::mem::take(&mut self.output).into()
    }
}

/// The command `onStatus` (RTMP specification section 7.2.2), as one chunk on message stream 1, the first that encoders
/// create. Its values have AMF0 markers: 0 number, 2 string, 3 object, 5 null, 9 end of object.
fn status(level: &str, code: &str, description: &str) -> Vec<u8> {
    let mut command = Vec::new();
    let text = |command: &mut Vec<u8>, text: &str| {
        let text = &text.as_bytes()[..text.floor_char_boundary(1000)];
        command.extend((text.len() as u16).to_be_bytes());
        command.extend(text);
    };
    command.push(2);
    text(&mut command, "onStatus");
    // The transaction id 0, a number of 8 bytes; a null command object; an information object with three strings.
    command.extend([0; 9]);
    command.extend([5, 3]);
    for (name, value) in [("level", level), ("code", code), ("description", description)] {
        text(&mut command, name);
        command.push(2);
        text(&mut command, value);
    }
    // An empty name, and the end of the object.
    command.extend([0, 0, 9]);
    let mut chunk = Vec::new();
    filter::put_message(&mut chunk, filter::REPLY_CHUNK_STREAM, filter::COMMAND, 0, 1, &command);
    chunk
}
