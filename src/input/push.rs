//! Encoders that push by RTMP: the other side of the connection is this process' standard output.
//!
//! Owns: the connection, from its first byte on: what a stranger sends is read here, and not in the edge. Does not know: who
//! may push, which the edge decides when it has heard what is wanted.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::open::{OpenError, Task};
use super::rtmp::Tags;
use crate::codec::intake::{Feeder, Intake};
use crate::rtmp::{Server, ServerEvent};
use crate::secret::Secret;

/// How long an encoder may take until it says what it wants.
const BEGINNING: Duration = Duration::from_secs(8);
/// How long it may take to hear that it may not.
const REFUSING: Duration = Duration::from_secs(2);
/// Bytes read at once.
const READ: usize = 32 << 10;

/// An encoder that waits to be let in.
pub(super) struct Encoder {
    stream: TcpStream,
    server: Server,
    network: Runtime,
}

impl Encoder {
    /// Hears what the encoder at standard output wants: application and stream key.
    ///
    /// # Errors
    /// In words: it does not speak RTMP, or is gone.
    pub(super) fn receive() -> Result<(Self, String, Secret), String> {
        let network = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let network = network.map_err(|error| error.to_string())?;
        let broken = |error: std::io::Error| format!("the connection cannot be used: {error}");
        let socket: OwnedFd = rustix::stdio::stdout().try_clone_to_owned().map_err(broken)?;
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true).map_err(broken)?;
        let (stream, server, app, key) = network.block_on(async {
            let mut stream = TcpStream::from_std(socket).map_err(broken)?;
            let mut server = Server::new().map_err(|error| error.to_string())?;
            let wish = timeout(BEGINNING, wish(&mut stream, &mut server)).await;
            let (app, key) = wish.map_err(|_| "the encoder does not say what it wants".to_owned())??;
            Ok::<_, String>((stream, server, app, key))
        })?;
        Ok((Self { stream, server, network }, app, key))
    }

    /// Tells the encoder that it may not, and hangs up.
    pub(super) fn refuse(mut self, why: &str) {
        let told = async {
            self.server.refuse(why).ok()?;
            self.stream.write_all(&self.server.output()).await.ok()?;
            self.stream.shutdown().await.ok()
        };
        // An encoder that does not listen is not told.
        let _ = self.network.block_on(async { timeout(REFUSING, told).await });
    }

    /// Lets the encoder push.
    pub(super) fn accept(self, wake: impl Fn() + Send + Sync + 'static) -> Result<(Intake, Task, Runtime), OpenError> {
        let Self { mut stream, mut server, network } = self;
        let (intake, feeder) = Intake::fed(wake).map_err(OpenError::lasting)?;
        server.accept().map_err(OpenError::lasting)?;
        let task = network.spawn(async move {
            if let Err(reason) = play(&mut stream, &mut server, &feeder).await {
                feeder.fail(reason);
            }
        });
        Ok((intake, Task(task), network))
    }
}

/// Sends what is to be sent and reads what comes; None once the encoder has hung up.
async fn turn(stream: &mut TcpStream, server: &mut Server) -> Result<Option<Vec<ServerEvent>>, String> {
    let broken = |_| "the connection broke off".to_owned();
    stream.write_all(&server.output()).await.map_err(broken)?;
    let mut bytes = vec![0; READ];
    let length = stream.read(&mut bytes).await.map_err(broken)?;
    if length == 0 {
        return Ok(None);
    }
    server.input(&bytes[..length]).map(Some).map_err(|error| error.to_string())
}

async fn wish(stream: &mut TcpStream, server: &mut Server) -> Result<(String, Secret), String> {
    loop {
        let events = turn(stream, server).await?.ok_or("the encoder hung up")?;
        for event in events {
            if let ServerEvent::Publish { app, key } = event {
                return Ok((app, key));
            }
        }
    }
}

/// Feeds what the encoder pushes until it ends.
async fn play(stream: &mut TcpStream, server: &mut Server, feeder: &Feeder) -> Result<(), String> {
    let mut tags = Tags::default();
    while let Some(events) = turn(stream, server).await? {
        for event in events {
            match event {
                ServerEvent::Publish { .. } => return Err("the encoder wants to push twice".into()),
                ServerEvent::Media(media) => tags.take(media, feeder)?,
                ServerEvent::Finished => return Ok(()),
            }
        }
        if feeder.is_over() {
            break;
        }
    }
    Ok(())
}
