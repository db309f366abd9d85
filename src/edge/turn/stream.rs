//! TURN by TCP and TLS: messages one after the other on a connection (RFC 8656 section 3.1).
//!
//! Owns: taking the messages apart, the queue of what is to be written, and how long a connection may do nothing. Does not
//! know: what a message means. A reader that is too slow loses whole messages, which are counted; it delays nobody.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::message::{Frame, frame};
use super::server::{Client, Flow};
use super::{Shared, Sink};
use crate::time;

/// Longest message taken, in bytes: a datagram with its wrapping.
const MESSAGE_MAX: usize = 4096;
/// Messages that wait to be written: a second of video at 3 Mbit/s. Then the newest are dropped.
const QUEUE: usize = 256;
/// Messages written at once.
const BATCH: usize = 32;
/// How long a connection may be without an allocation.
const IDLE: Duration = Duration::from_secs(15);
/// How long the far end may take none of what is written.
const STALL: Duration = Duration::from_secs(15);

/// A connection's place among those that are counted; gives back what it had when it is over.
struct Place<'a> {
    shared: &'a Shared,
    client: Client,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.stream_closed(&self.client);
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send>(shared: &Shared, stream: S, peer: SocketAddr) {
    let Some(number) = shared.stream_opened(peer.ip()) else { return };
    let place = Place { shared, client: Client { flow: Flow::Stream(number), address: peer } };
    let (reader, writer) = tokio::io::split(stream);
    let (sender, queue) = mpsc::channel(QUEUE);
    let sink = Sink::Stream(sender);
    // How a connection ends is its own affair: both halves end with it.
    tokio::select! {
        _ = read(shared, place.client, &sink, reader) => {}
        _ = write(writer, queue) => {}
    }
}

async fn read(shared: &Shared, client: Client, sink: &Sink, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(2 * MESSAGE_MAX);
    let mut since = time::now();
    loop {
        match frame(&buffer, MESSAGE_MAX) {
            Frame::Wrong => return Ok(()),
            Frame::Whole(size) if buffer.len() >= size => {
                shared.received(client, sink, &buffer[..size]);
                buffer.advance(size);
                continue;
            }
            Frame::Whole(_) | Frame::Incomplete => {}
        }
        if time::now().since(since) >= IDLE {
            if !shared.has_allocation(&client) {
                return Ok(());
            }
            since = time::now();
        }
        if let Ok(read) = timeout(IDLE, reader.read_buf(&mut buffer)).await
            && read? == 0
        {
            return Ok(());
        }
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let bytes = batch.concat();
        batch.clear();
        timeout(STALL, async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        })
        .await??;
    }
    Ok(())
}
