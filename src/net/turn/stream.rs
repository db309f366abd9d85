//! TURN over TCP and TLS (RFC 8656 section 3.1).
//!
//! Owns: splitting the byte stream into messages, and the timeouts of a connection. Does not know: the protocol.
//! Messages enter the server, responses leave by an [`Outbox`], which drops packets for a slow reader. A connection
//! ends with its session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::message::{Frame, frame};
use super::server::{Client, Flow};
use super::{Permit, Shared, Sink};
use crate::net::tcp::Outbox;
use crate::time;

/// Longest accepted message, in bytes: a datagram and its header.
const MESSAGE_MAX: usize = 4096;
/// Bytes written at a time.
const CHUNK: usize = 16 * 1024;
/// Time that a connection may be without an allocation.
const IDLE: Duration = Duration::from_secs(15);
/// Write timeout: the client reads nothing for this time.
const STALL: Duration = Duration::from_secs(15);

/// Removes the state of a connection when it ends, also by cancellation.
struct Open<'a> {
    shared: &'a Shared,
    client: Client,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shared.stream_closed(&self.client, self.number);
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send>(
    shared: &Shared,
    stream: S,
    peer: SocketAddr,
    mut permit: Permit,
) {
    let (number, end) = shared.stream_opened();
    let open = Open { shared, client: Client { flow: Flow::Stream(number), address: peer }, number };
    let (reader, writer) = tokio::io::split(stream);
    let outbox = Arc::new(Outbox::default());
    let sink = Sink::Stream(Arc::clone(&outbox));
    // How a connection ends is its own affair: both halves end with it.
    tokio::select! {
        _ = read(shared, open.client, &sink, reader, &mut permit) => {}
        _ = write(writer, &outbox) => {}
        () = end.cancelled() => {}
    }
}

async fn read(
    shared: &Shared,
    client: Client,
    sink: &Sink,
    mut reader: impl AsyncRead + Unpin,
    permit: &mut Permit,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(2 * MESSAGE_MAX);
    let mut since = time::now();
    loop {
        match frame(&buffer, MESSAGE_MAX) {
            Frame::Wrong => return Ok(()),
            Frame::Whole(size) if buffer.len() >= size => {
                shared.received(client, sink, &buffer[..size]);
                buffer.advance(size);
                if permit.is_pending() && shared.has_allocation(&client) {
                    permit.settle();
                }
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

async fn write(mut writer: impl AsyncWrite + Unpin, outbox: &Outbox) -> io::Result<()> {
    let mut stream = BytesMut::new();
    loop {
        outbox.fill(&mut stream, CHUNK);
        if stream.is_empty() {
            outbox.filled().await;
            continue;
        }
        timeout(STALL, async {
            writer.write_all_buf(&mut stream).await?;
            writer.flush().await
        })
        .await??;
    }
}
