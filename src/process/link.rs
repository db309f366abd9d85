//! The queue towards a process, and the writer of its end of the link.
//!
//! Owns: [`Link`]: the messages that wait, their limits, the bytes that the socket has not yet accepted. Does not know:
//! what the messages mean, processes. In: messages, by [`Link::send`] and [`Link::queue`], which never wait. Out:
//! framed bytes, written by any thread that calls [`Link::flush`], else by the task of [`Link::write`]; a lock keeps
//! their order.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::link::ToMixer;
use crate::link::frame;
use crate::link::input::ToInput;
use crate::link::output::ToOutput;

/// Most media messages that wait for a mixer: about 0.5 s of thirty participants. The oldest is dropped first.
const MIXER_MEDIA_MAX: usize = 4_096;
/// Most media messages that wait for an output: about 20 s of one stream with audio. More mean that the output hangs.
pub(super) const OUTPUT_MEDIA_MAX: usize = 8_192;
/// Most bytes of one write.
const BATCH_BYTES: usize = 256 * 1024;

/// A message to a process.
pub trait ToProcess: Serialize + Debug + Send + 'static {
    /// The policy for a full queue.
    const OVERFLOW: Overflow;

    /// Whether it is media, whose queue is bounded, or an order, of which there are few.
    fn is_media(&self) -> bool;
}

/// The policy when the queue of media messages is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Above so many messages the oldest is dropped and counted.
    DropOldest(usize),
    /// Above so many messages the process is ended as hung: a recording must have no gaps.
    Hung(usize),
}

impl ToProcess for ToMixer {
    const OVERFLOW: Overflow = Overflow::DropOldest(MIXER_MEDIA_MAX);

    fn is_media(&self) -> bool {
        Self::is_media(self)
    }
}

impl ToProcess for ToOutput {
    const OVERFLOW: Overflow = Overflow::Hung(OUTPUT_MEDIA_MAX);

    fn is_media(&self) -> bool {
        Self::is_media(self)
    }
}

impl ToProcess for ToInput {
    const OVERFLOW: Overflow = Overflow::DropOldest(0);

    /// An input gets orders only.
    fn is_media(&self) -> bool {
        false
    }
}

/// The queue towards a process.
#[derive(Debug)]
pub struct Link<T> {
    queue: Mutex<Queue<T>>,
    writer: Mutex<Writer>,
    filled: Notify,
    /// The queue of an output was full.
    stuck: Notify,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<T>,
    media: usize,
}

/// The socket, and the bytes that it has not yet accepted.
#[derive(Debug, Default)]
struct Writer {
    socket: Option<Arc<OwnedWriteHalf>>,
    bytes: Vec<u8>,
    written: usize,
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        let queue = Queue { messages: VecDeque::new(), media: 0 };
        Self {
            queue: Mutex::new(queue),
            writer: Mutex::default(),
            filled: Notify::new(),
            stuck: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }
}

/// Closes the link when it is dropped: its messages are kept, and written no more.
pub(super) struct CloseOnDrop<'a>(&'a Mutex<Writer>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Writer::default();
    }
}

impl<T: ToProcess> Link<T> {
    pub(crate) fn to(socket: OwnedWriteHalf) -> Self {
        let writer = Writer { socket: Some(Arc::new(socket)), ..Writer::default() };
        Self { writer: Mutex::new(writer), ..Self::default() }
    }

    pub(super) fn close_on_drop(&self) -> CloseOnDrop<'_> {
        CloseOnDrop(&self.writer)
    }

    /// Queues a message and wakes the task that writes. Media is bounded, see [`ToProcess::OVERFLOW`]; orders are never
    /// dropped.
    pub fn send(&self, message: T) {
        self.queue(message);
        self.filled.notify_one();
    }

    /// Queues a message as [`Link::send`] does, for the next [`Link::flush`].
    pub fn queue(&self, message: T) {
        let mut queue = self.queue.lock();
        if message.is_media() {
            match T::OVERFLOW {
                Overflow::DropOldest(most) if queue.media >= most => {
                    let oldest = queue.messages.iter().position(T::is_media);
                    oldest.map(|i| queue.messages.remove(i));
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Overflow::Hung(most) if queue.media >= most => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    return self.stuck.notify_one();
                }
                _ => queue.media += 1,
            }
        }
        queue.messages.push_back(message);
    }

    /// Writes the queued messages without waiting; what the process does not accept now is written by the task.
    pub fn flush(&self) {
        if !self.try_write().is_ok_and(|is_done| is_done) {
            self.filled.notify_one();
        }
    }

    /// Media messages dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes messages until the link fails.
    pub(super) async fn write(&self) -> io::Error {
        loop {
            match self.try_write() {
                Ok(true) => self.filled.notified().await,
                Ok(false) => {
                    let socket = self.writer.lock().socket.clone();
                    if let Some(socket) = socket
                        && let Err(error) = socket.writable().await
                    {
                        return error;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Waits until the queue of an output is full.
    pub(super) async fn stuck(&self) {
        self.stuck.notified().await;
    }

    /// Writes until nothing is queued, which is true, or until the socket accepts no more, which is false.
    fn try_write(&self) -> io::Result<bool> {
        let mut writer = self.writer.lock();
        let Writer { socket: Some(socket), bytes, written } = &mut *writer else { return Ok(true) };
        loop {
            if *written == bytes.len() {
                bytes.clear();
                *written = 0;
                self.take_batch(bytes);
                if bytes.is_empty() {
                    return Ok(true);
                }
            }
            match socket.try_write(&bytes[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => *written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_batch(&self, out: &mut Vec<u8>) {
        let mut queue = self.queue.lock();
        while out.len() < BATCH_BYTES {
            let Some(message) = queue.messages.pop_front() else { break };
            queue.media -= usize::from(message.is_media());
            if let Err(error) = frame::encode_into(&message, out) {
                tracing::error!(%error, "message to process not sent");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::id::SourceId;
    use crate::media::SourcePacket;
    use crate::process::MixerLink;
    use crate::time::Timestamp;

    fn packet(sequence: u16) -> ToMixer {
        let packet = SourcePacket {
            sequence,
            timestamp: 0,
            marker: false,
            arrival: Timestamp::default(),
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: Bytes::from_static(&[7; 1_000]),
        };
        ToMixer::Packet(SourceId(1), packet)
    }

    #[test]
    fn a_full_queue_of_a_mixer_drops_the_oldest_packets_and_no_orders() {
        let link = MixerLink::default();
        link.send(ToMixer::SourceGone(SourceId(9)));
        for sequence in 0..MIXER_MEDIA_MAX as u16 + 3 {
            link.send(packet(sequence));
        }
        assert_eq!(link.dropped(), 3);
        let queue = link.queue.lock();
        assert_eq!(queue.messages.len(), MIXER_MEDIA_MAX + 1);
        assert_eq!(queue.messages[0], ToMixer::SourceGone(SourceId(9)));
        assert_eq!(queue.messages[1], packet(3));
    }

    #[tokio::test]
    async fn messages_keep_their_order_when_threads_and_the_task_write() {
        const COUNT: u16 = 3_000;
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let (_read, write) = ours.into_split();
        let link = Arc::new(MixerLink::to(write));
        let feeding = Arc::clone(&link);
        let feeder = std::thread::spawn(move || {
            for sequence in 0..COUNT {
                feeding.queue(packet(sequence));
                match sequence % 5 {
                    0 => feeding.flush(),
                    3 => feeding.filled.notify_one(),
                    _ => {}
                }
            }
            feeding.flush();
        });
        let reader = async {
            let (mut decoder, mut buffer, mut expected) = (frame::Decoder::default(), vec![0; 10_000], 0);
            while expected < COUNT {
                let length = theirs.read(&mut buffer).await.expect("it is open");
                decoder.extend(&buffer[..length]);
                while let Some(message) = decoder.next_message::<ToMixer>().expect("well formed") {
                    assert_eq!(message, packet(expected));
                    expected += 1;
                }
            }
        };
        tokio::select! {
            () = reader => {}
            error = link.write() => panic!("{error}"),
        }
        feeder.join().expect("no panic");
        assert_eq!(link.dropped(), 0);
    }

    #[tokio::test]
    async fn a_closed_link_keeps_messages_and_writes_none() {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let (read, write) = ours.into_split();
        let link = MixerLink::to(write);
        drop(link.close_on_drop());
        drop(read);
        link.queue(packet(1));
        link.flush();
        assert_eq!(theirs.read(&mut [0; 10]).await.expect("end of stream"), 0);
        assert_eq!(link.queue.lock().messages.len(), 1);
    }
}
