//! Encoders that publish to us by RTMP. The edge passes the accepted connection as this process' standard output.
//!
//! Owns: the connection after the request to publish, which the edge has read and allowed ([`crate::rtmp::Reception`]).
//! Does not know: stream keys. In: the socket, and what was received before. Out: an [`Intake`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::open::{OpenError, Task};
use super::rtmp::Tags;
use super::skipped::Skipped;
use crate::codec::intake::{Feeder, Intake};
use crate::rtmp::{self, Server, ServerEvent};
use crate::secret::Secret;
use crate::time::now;

/// Timeout of an encoder's request to publish.
const START_TIMEOUT: Duration = Duration::from_secs(8);
/// Timeout of sending a refusal.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Size of a read in bytes.
const READ_BUFFER: usize = 32 << 10;

/// An encoder that requested to publish and is neither accepted nor refused yet.
pub(super) struct Encoder {
    stream: TcpStream,
    server: Server,
    network: Runtime,
}

impl Encoder {
    /// Waits for the publish request of the encoder at standard output; returns application and stream key. `received`:
    /// what the encoder has sent and got answers to.
    ///
    /// # Errors
    /// A text: the peer does not speak RTMP, disconnected, or sent no request in time.
    pub(super) fn receive(received: &[u8]) -> Result<(Self, String, Secret), String> {
        let network = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let network = network.map_err(|error| error.to_string())?;
        let connection_error = |error: std::io::Error| format!("the connection cannot be used: {error}");
        let socket: OwnedFd = rustix::stdio::stdout().try_clone_to_owned().map_err(connection_error)?;
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true).map_err(connection_error)?;
        let (stream, server, app, key) = network.block_on(async {
            let mut stream = TcpStream::from_std(socket).map_err(connection_error)?;
            let (mut server, events) = rtmp::take_over(received).map_err(|error| error.to_string())?;
            let (app, key) = match request_in(events) {
                Some(request) => request,
                None => {
                    let request = timeout(START_TIMEOUT, publish_request(&mut stream, &mut server)).await;
                    request.map_err(|_| "the encoder sent no request to publish in time".to_owned())??
                }
            };
            Ok::<_, String>((stream, server, app, key))
        })?;
        Ok((Self { stream, server, network }, app, key))
    }

    /// Refuses the request and closes the connection.
    pub(super) fn refuse(mut self, why: &str) {
        let send = async {
            self.server.refuse(why).ok()?;
            self.stream.write_all(&self.server.output()).await.ok()?;
            self.stream.shutdown().await.ok()
        };
        // The encoder may have disconnected.
        let _ = self.network.block_on(async { timeout(REFUSE_TIMEOUT, send).await });
    }

    /// Accepts the request, and feeds the encoder's media to an intake.
    pub(super) fn accept(
        self,
        skipped: Arc<Skipped>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<(Intake, Task, Runtime), OpenError> {
        let Self { mut stream, mut server, network } = self;
        let (intake, feeder) = Intake::fed(wake).map_err(OpenError::permanent)?;
        server.accept().map_err(OpenError::permanent)?;
        let task = network.spawn(async move {
            if let Err(reason) = play(&mut stream, &mut server, &feeder, skipped).await {
                feeder.fail(reason);
            }
        });
        Ok((intake, Task(task), network))
    }
}

/// Sends pending output and reads once; None when the encoder closed the connection.
async fn exchange(stream: &mut TcpStream, server: &mut Server) -> Result<Option<Vec<ServerEvent>>, String> {
    let connection_error = |_| "connection lost".to_owned();
    stream.write_all(&server.output()).await.map_err(connection_error)?;
    let mut bytes = vec![0; READ_BUFFER];
    let length = stream.read(&mut bytes).await.map_err(connection_error)?;
    if length == 0 {
        return Ok(None);
    }
    server.input(&bytes[..length]).map(Some).map_err(|error| error.to_string())
}

async fn publish_request(stream: &mut TcpStream, server: &mut Server) -> Result<(String, Secret), String> {
    loop {
        let events = exchange(stream, server).await?.ok_or("the encoder closed the connection")?;
        if let Some(request) = request_in(events) {
            return Ok(request);
        }
    }
}

fn request_in(events: Vec<ServerEvent>) -> Option<(String, Secret)> {
    events.into_iter().find_map(|event| match event {
        ServerEvent::Publish { app, key } => Some((app, key)),
        _ => None,
    })
}

/// Feeds the encoder's media until the stream ends.
async fn play(
    stream: &mut TcpStream,
    server: &mut Server,
    feeder: &Feeder,
    skipped: Arc<Skipped>,
) -> Result<(), String> {
    let mut tags = Tags::new(skipped);
    while let Some(events) = exchange(stream, server).await? {
        for event in events {
            match event {
                ServerEvent::Publish { .. } => return Err("the encoder requested to publish twice".into()),
                ServerEvent::Media(media) => tags.take(media, feeder, now())?,
                ServerEvent::Finished => return Ok(()),
            }
        }
        if feeder.is_over() {
            break;
        }
    }
    Ok(())
}
