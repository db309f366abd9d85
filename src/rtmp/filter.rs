//! The filter in front of the sessions of `rml_rtmp`: reassembles chunks, and forwards only messages that are safe to
//! parse.
//!
//! Owns: the chunk stream of one direction (section 5.3), size limits, the selection of messages, and acknowledgements.
//! Does not know: the meaning of commands. In: received bytes. Out: the same messages, each as one chunk, for a session
//! with a huge chunk size; and acknowledgements. The reasons are in the documentation of the module `rtmp`.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, BytesMut};

use super::RtmpError;
use super::amf::count_values;

/// Most chunk streams of a peer; usual peers use less than ten.
const STREAMS_MAX: usize = 64;
/// Largest audio or video message in bytes, ten times a keyframe of 1080p.
const MEDIA_MAX: usize = 4 << 20;
/// Largest other message in bytes.
const CONTROL_MAX: usize = 64 << 10;
/// Most bytes of incomplete messages.
const INCOMPLETE_MAX: usize = 8 << 20;
/// Value of the timestamp field that announces an extended timestamp.
const EXTENDED: u32 = 0xff_ffff;
/// Chunk stream of our own messages; the sessions of the crate use 2 to 6.
pub(super) const REPLY_CHUNK_STREAM: u8 = 7;
/// Type of a command in AMF0.
pub(super) const COMMAND: u8 = kind::COMMAND;

/// Message types (sections 5.4 and 7.1).
mod kind {
    pub(super) const SET_CHUNK_SIZE: u8 = 1;
    pub(super) const ABORT: u8 = 2;
    pub(super) const USER_CONTROL: u8 = 4;
    pub(super) const WINDOW_SIZE: u8 = 5;
    pub(super) const AUDIO: u8 = 8;
    pub(super) const VIDEO: u8 = 9;
    pub(super) const DATA_AMF3: u8 = 15;
    pub(super) const COMMAND_AMF3: u8 = 17;
    pub(super) const DATA: u8 = 18;
    pub(super) const COMMAND: u8 = 20;
}

/// Filter of the bytes that one peer sends.
pub(super) struct MessageFilter {
    buffer: BytesMut,
    chunk_size: usize,
    streams: BTreeMap<u32, ChunkStream>,
    /// Bytes of incomplete messages.
    incomplete: usize,
    /// Window acknowledgement size of the peer in bytes.
    window: Option<u32>,
    received: u64,
    acknowledged: u64,
}

#[derive(Default)]
struct ChunkStream {
    timestamp: u32,
    /// Timestamp field of the last header.
    field: u32,
    /// The timestamp or delta of the last header, extended if announced.
    delta: u32,
    length: usize,
    kind: u8,
    message_stream: u32,
    payload: BytesMut,
}

/// Output of the filter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filtered {
    /// Bytes for the session.
    pub(super) session: Vec<u8>,
    /// Bytes for the peer.
    pub(super) reply: Vec<u8>,
}

/// A chunk header; fields that its format omits are None.
struct Header {
    stream: u32,
    /// Timestamp field, and the timestamp or delta, extended if announced.
    time: Option<(u32, u32)>,
    /// Length and type of the message.
    message: Option<(usize, u8)>,
    message_stream: Option<u32>,
    /// Length of the header in bytes.
    length: usize,
}

impl MessageFilter {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            chunk_size: 128,
            streams: BTreeMap::new(),
            incomplete: 0,
            window: None,
            received: 0,
            acknowledged: 0,
        }
    }

    /// First bytes for the session: sets the largest chunk size, so that every message is one chunk.
    pub(super) fn preamble() -> Vec<u8> {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &0x7fff_ffffu32.to_be_bytes());
        bytes
    }

    /// Processes received bytes.
    ///
    /// # Errors
    /// The bytes are malformed or exceed a limit; the connection must be closed.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Filtered, RtmpError> {
        let mut filtered = Filtered::default();
        self.buffer.extend_from_slice(bytes);
        self.received += bytes.len() as u64;
        while self.chunk(&mut filtered.session)? {}
        if let Some(window) = self.window
            && self.received - self.acknowledged >= u64::from(window)
        {
            self.acknowledged = self.received;
            put_message(&mut filtered.reply, REPLY_CHUNK_STREAM, 3, 0, 0, &(self.received as u32).to_be_bytes());
        }
        Ok(filtered)
    }

    /// Takes one chunk off the buffer; false if it is incomplete.
    fn chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, RtmpError> {
        let extended = |id: u32| {
            let stream = self.streams.get(&id).filter(|stream| stream.field == EXTENDED)?;
            Some([stream.delta, stream.timestamp])
        };
        let Some(header) = header(&self.buffer, extended) else { return Ok(false) };
        let known = self.streams.get(&header.stream);
        if known.is_none() && (header.message_stream.is_none() || self.streams.len() >= STREAMS_MAX) {
            return Err(RtmpError::Chunk("it uses too many chunk streams, or one that it never began"));
        }
        // A header with a time in the middle of a message begins another one.
        let so_far = known.filter(|_| header.time.is_none()).map_or(0, |stream| stream.payload.len());
        let (length, kind) =
            header.message.or_else(|| known.map(|stream| (stream.length, stream.kind))).unwrap_or_default();
        let largest = if matches!(kind, kind::AUDIO | kind::VIDEO) { MEDIA_MAX } else { CONTROL_MAX };
        if length > largest {
            return Err(RtmpError::TooLarge(length));
        }
        let here = (length - so_far).min(self.chunk_size);
        if self.buffer.len() < header.length + here {
            return Ok(false);
        }
        self.buffer.advance(header.length);
        let data = self.buffer.split_to(here);

        let stream = self.streams.entry(header.stream).or_default();
        if so_far == 0 {
            self.incomplete -= stream.payload.len();
            stream.payload.clear();
            if let Some((field, value)) = header.time {
                (stream.field, stream.delta) = (field, value);
            }
            stream.timestamp = match header.message_stream {
                Some(_) => stream.delta,
                None => stream.timestamp.wrapping_add(stream.delta),
            };
        }
        stream.message_stream = header.message_stream.unwrap_or(stream.message_stream);
        (stream.length, stream.kind) = (length, kind);
        stream.payload.extend_from_slice(&data);
        self.incomplete += data.len();
        if self.incomplete > INCOMPLETE_MAX {
            return Err(RtmpError::TooLarge(self.incomplete));
        }
        if stream.payload.len() == length {
            self.incomplete -= length;
            let payload = stream.payload.split();
            let (timestamp, message_stream) = (stream.timestamp, stream.message_stream);
            self.message(kind, timestamp, message_stream, &payload, out)?;
        }
        Ok(true)
    }

    fn message(
        &mut self,
        kind: u8,
        timestamp: u32,
        message_stream: u32,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RtmpError> {
        let number = || payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let forward = match kind {
            kind::SET_CHUNK_SIZE => {
                match number() {
                    // A message that is too short is skipped.
                    None => {}
                    Some(size @ 1..=0x7fff_ffff) => self.chunk_size = size as usize,
                    Some(_) => {
                        let why = "it sets a chunk size that is not from 1 to 2,147,483,647 bytes";
                        return Err(RtmpError::Chunk(why));
                    }
                }
                false
            }
            kind::ABORT => {
                if let Some(stream) = number().and_then(|id| self.streams.get_mut(&id)) {
                    self.incomplete -= stream.payload.len();
                    stream.payload.clear();
                }
                false
            }
            kind::WINDOW_SIZE => {
                self.window = number().filter(|size| *size > 0);
                false
            }
            // Event types that the session parses, if long enough; others concern players.
            kind::USER_CONTROL => match payload {
                [0, 3, rest @ ..] => rest.len() >= 8,
                [0, 0..=2 | 4 | 6 | 7, rest @ ..] => rest.len() >= 4,
                _ => false,
            },
            kind::AUDIO | kind::VIDEO => true,
            kind::DATA | kind::DATA_AMF3 => count_values(payload).is_some_and(|count| count >= 1),
            kind::COMMAND => count_values(payload).is_some_and(|count| count >= 3),
            kind::COMMAND_AMF3 => {
                count_values(payload.strip_prefix(&[0]).unwrap_or(payload)).is_some_and(|count| count >= 3)
            }
            _ => false,
        };
        if forward {
            put_message(out, 3, kind, timestamp, message_stream, payload);
        }
        Ok(())
    }
}

/// Parses a chunk header (section 5.3.1); None if it is incomplete. `extended` returns the values of a chunk stream's
/// extended timestamp, if its last header had one.
///
/// Chunks of format 3 repeat the extended timestamp (section 5.3.1.3), but some encoders omit it. So it is only taken
/// for one if it has a value that the encoder may repeat: the delta or the timestamp.
fn header(bytes: &[u8], extended: impl Fn(u32) -> Option<[u32; 2]>) -> Option<Header> {
    let mut rest = bytes;
    let first = rest.try_get_u8().ok()?;
    let stream = match first & 0x3f {
        0 => 64 + u32::from(rest.try_get_u8().ok()?),
        1 => 64 + u32::from(rest.try_get_u16_le().ok()?),
        id => u32::from(id),
    };
    let format = first >> 6;
    let mut header = Header { stream, time: None, message: None, message_stream: None, length: 0 };
    if format < 3 {
        let field = rest.try_get_uint(3).ok()? as u32;
        header.time = Some((field, field));
    }
    if format < 2 {
        header.message = Some((rest.try_get_uint(3).ok()? as usize, rest.try_get_u8().ok()?));
    }
    if format < 1 {
        header.message_stream = Some(rest.try_get_u32_le().ok()?);
    }
    if header.time.is_some_and(|(field, _)| field == EXTENDED) {
        header.time = Some((EXTENDED, rest.try_get_u32().ok()?));
    } else if header.time.is_none()
        && let Some(values) = extended(stream).map(|values| values.map(u32::to_be_bytes))
    {
        let there = &rest[..rest.len().min(4)];
        if values.iter().any(|value| value.starts_with(there)) {
            rest.try_get_u32().ok()?;
        }
    }
    header.length = bytes.len() - rest.len();
    Some(header)
}

/// Writes a message as one chunk.
pub(super) fn put_message(
    out: &mut Vec<u8>,
    stream: u8,
    kind: u8,
    timestamp: u32,
    message_stream: u32,
    payload: &[u8],
) {
    out.put_u8(stream);
    out.put_uint(u64::from(timestamp.min(EXTENDED)), 3);
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u32_le(message_stream);
    if timestamp >= EXTENDED {
        out.put_u32(timestamp);
    }
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Messages cut into chunks of `size` bytes, interleaved.
    fn interleaved_chunks(messages: &[(u8, u8, u32, Vec<u8>)], size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rests: Vec<&[u8]> = messages.iter().map(|message| &message.3[..]).collect();
        let mut begun = vec![false; messages.len()];
        while begun.contains(&false) || rests.iter().any(|rest| !rest.is_empty()) {
            for (n, (stream, kind, timestamp, payload)) in messages.iter().enumerate() {
                if begun[n] && rests[n].is_empty() {
                    continue;
                }
                let (now, later) = rests[n].split_at(rests[n].len().min(size));
                if begun[n] {
                    bytes.put_u8(0xc0 | stream);
                    if *timestamp >= EXTENDED {
                        bytes.put_u32(*timestamp);
                    }
                } else {
                    let mut whole = Vec::new();
                    put_message(&mut whole, *stream, *kind, *timestamp, 1, payload);
                    bytes.extend_from_slice(&whole[..whole.len() - payload.len()]);
                }
                bytes.extend_from_slice(now);
                begun[n] = true;
                rests[n] = later;
            }
        }
        bytes
    }

    fn session_bytes(messages: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, timestamp, payload) in messages {
            put_message(&mut bytes, 3, *kind, *timestamp, 1, payload);
        }
        bytes
    }

    #[test]
    fn interleaved_messages_are_reassembled() {
        let (video, audio) = (vec![1; 1000], vec![2; 150]);
        let messages = [(4, kind::VIDEO, 0x0100_0000, video.clone()), (5, kind::AUDIO, 20, audio.clone())];
        let mut filter = MessageFilter::new();
        let mut filtered = Vec::new();
        for byte in interleaved_chunks(&messages, 128) {
            filtered.extend(filter.push(&[byte]).expect("fine").session);
        }
        let whole = [(kind::AUDIO, 20, &audio[..]), (kind::VIDEO, 0x0100_0000, &video[..])];
        assert_eq!(filtered, session_bytes(&whole));
        assert_eq!(filter.incomplete, 0);
    }

    #[test]
    fn extended_timestamps_need_not_be_repeated() {
        // Payloads that begin like the timestamp, or are shorter than one, and one that ends with the bytes received.
        let timestamp = 0x0100_0000_u32;
        for payload in [vec![7; 300], [1, 0, 0, 9].repeat(70), vec![1; 129], vec![0; 130]] {
            for (repeat, piece) in [(true, 1), (false, 1), (true, 1000), (false, 1000)] {
                let (mut bytes, mut whole) = (Vec::new(), Vec::new());
                put_message(&mut whole, 4, kind::VIDEO, timestamp, 1, &payload);
                let header = whole.len() - payload.len();
                bytes.extend_from_slice(&whole[..header]);
                for (n, chunk) in payload.chunks(128).enumerate() {
                    if n > 0 {
                        bytes.push(0xc4);
                        bytes.extend(timestamp.to_be_bytes().into_iter().filter(|_| repeat));
                    }
                    bytes.extend(chunk);
                }
                // The next messages: format 1 with an extended delta, and format 3.
                for first in [0x44, 0xc4] {
                    bytes.push(first);
                    if first == 0x44 {
                        bytes.extend([0xff, 0xff, 0xff, 0, 0, 5, kind::VIDEO]);
                        bytes.extend(timestamp.to_be_bytes());
                    } else {
                        bytes.extend(timestamp.to_be_bytes().into_iter().filter(|_| repeat));
                    }
                    bytes.extend([9; 5]);
                }
                let mut filter = MessageFilter::new();
                let mut filtered = Vec::new();
                for piece in bytes.chunks(piece) {
                    filtered.extend(filter.push(piece).expect("fine").session);
                }
                let times = [1, 2, 3].map(|n| timestamp.wrapping_mul(n));
                let nine = [9; 5];
                let expected = [
                    (kind::VIDEO, times[0], &payload[..]),
                    (kind::VIDEO, times[1], &nine),
                    (kind::VIDEO, times[2], &nine),
                ];
                assert_eq!(filtered, session_bytes(&expected), "repeated: {repeat}, {} bytes", payload.len());
            }
        }
    }

    #[test]
    fn messages_without_contents_are_forwarded_and_short_control_messages_are_skipped() {
        let mut bytes = Vec::new();
        for kind in
            [kind::SET_CHUNK_SIZE, kind::ABORT, kind::WINDOW_SIZE, kind::USER_CONTROL, kind::COMMAND, kind::DATA]
        {
            put_message(&mut bytes, 2, kind, 0, 0, &[]);
        }
        put_message(&mut bytes, 4, kind::AUDIO, 10, 1, &[]);
        bytes.extend([0xc4]);
        put_message(&mut bytes, 5, kind::VIDEO, 20, 1, &[1]);
        let empty = &[][..];
        let expected = [(kind::AUDIO, 10, empty), (kind::AUDIO, 20, empty), (kind::VIDEO, 20, &[1])];
        assert_eq!(MessageFilter::new().push(&bytes).expect("fine").session, session_bytes(&expected));
    }

    #[test]
    fn all_four_header_formats_are_parsed() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 4, kind::VIDEO, 1000, 1, &[1, 2]);
        // Format 1: delta, length and type; format 2: delta; format 3: nothing.
        bytes.extend([0x44, 0, 0, 40, 0, 0, 1, kind::VIDEO, 3]);
        bytes.extend([0x84, 0, 0, 33, 4]);
        bytes.extend([0xc4, 5]);
        let filtered = MessageFilter::new().push(&bytes).expect("fine");
        let times = [(1000, &[1, 2][..]), (1040, &[3]), (1073, &[4]), (1106, &[5])];
        assert_eq!(filtered.session, session_bytes(&times.map(|(time, payload)| (kind::VIDEO, time, payload))));
    }

    #[test]
    fn chunk_sizes_aborts_and_acknowledgements_are_handled_by_the_filter() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 2, kind::WINDOW_SIZE, 0, 0, &300u32.to_be_bytes());
        put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &4096u32.to_be_bytes());
        put_message(&mut bytes, 4, kind::VIDEO, 7, 1, &[9; 300]);
        let mut filter = MessageFilter::new();
        let filtered = filter.push(&bytes).expect("fine");
        assert_eq!(filtered.session, session_bytes(&[(kind::VIDEO, 7, &[9; 300])]));
        let mut ack = Vec::new();
        put_message(&mut ack, REPLY_CHUNK_STREAM, 3, 0, 0, &(bytes.len() as u32).to_be_bytes());
        assert_eq!(filtered.reply, ack);

        let mut half = interleaved_chunks(&[(4, kind::VIDEO, 8, vec![1; 5000])], 4096);
        half.truncate(4096 + 12);
        put_message(&mut half, 2, kind::ABORT, 0, 0, &4u32.to_be_bytes());
        put_message(&mut half, 4, kind::VIDEO, 9, 1, &[2]);
        assert_eq!(filter.push(&half).expect("fine").session, session_bytes(&[(kind::VIDEO, 9, &[2])]));
        assert_eq!(filter.incomplete, 0);
    }

    fn passes(kind: u8, payload: &[u8]) -> bool {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &100_000u32.to_be_bytes());
        put_message(&mut bytes, 3, kind, 0, 0, payload);
        !MessageFilter::new().push(&bytes).expect("in bounds").session.is_empty()
    }

    #[test]
    fn messages_that_the_session_cannot_parse_are_not_forwarded() {
        let connect = [2, 0, 7, b'c', b'o', b'n', b'n', b'e', b'c', b't', 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        assert!(passes(kind::COMMAND, &connect));
        assert!(!passes(kind::COMMAND, &connect[..19]), "two values: the crate assumes three");
        assert!(!passes(kind::COMMAND, &[]), "none");
        let deep: Vec<u8> = connect.iter().copied().chain([3, 0, 1, b'a'].repeat(16_000)).collect();
        assert!(!passes(kind::COMMAND, &deep), "nested too deeply");
        let wide: Vec<u8> = connect.iter().copied().chain([5; 60_000]).collect();
        assert!(!passes(kind::COMMAND, &wide), "too many values");
        let long: Vec<u8> = connect.iter().copied().chain([10, 255, 255, 255, 255]).collect();
        assert!(!passes(kind::COMMAND, &long), "an array longer than the message");
        assert!(!passes(kind::COMMAND, &[2, 255, 255, b'a', 5, 5]), "a string longer than the message");
        assert!(!passes(kind::USER_CONTROL, &[0, 3, 0, 0]), "too short");
        assert!(!passes(kind::USER_CONTROL, &[0, 32, 0, 0, 0, 1]), "unknown");
        assert!(passes(kind::USER_CONTROL, &[0, 6, 0, 0, 0, 1]), "a ping");
        assert!(!passes(22, &[1; 20]), "aggregates");
    }

    #[test]
    fn sizes_are_limited() {
        let header = |kind, length: u64| {
            let mut bytes = vec![3, 0, 0, 0];
            bytes.put_uint(length, 3);
            bytes.extend([kind, 0, 0, 0, 0]);
            bytes
        };
        assert!(matches!(MessageFilter::new().push(&header(kind::COMMAND, 65_537)), Err(RtmpError::TooLarge(65_537))));
        assert!(matches!(MessageFilter::new().push(&header(kind::VIDEO, 5 << 20)), Err(RtmpError::TooLarge(_))));
        assert!(
            matches!(MessageFilter::new().push(&[0xc4, 0]), Err(RtmpError::Chunk(_))),
            "the first chunk of a stream must have a full header"
        );
        // Many incomplete messages.
        let mut filter = MessageFilter::new();
        let mut bytes = Vec::new();
        put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &(3u32 << 20).to_be_bytes());
        filter.push(&bytes).expect("fine");
        let failed = (3..20).any(|stream| {
            let mut bytes = header(kind::VIDEO, 4 << 20);
            bytes[0] = stream;
            bytes.resize(12 + (3 << 20), 0);
            filter.push(&bytes).is_err()
        });
        assert!(failed && filter.incomplete <= INCOMPLETE_MAX + (3 << 20));
        let mut filter = MessageFilter::new();
        let failed = (0..=255).any(|id| filter.push(&[0, id, 0, 0, 0, 0, 0, 2, 8, 0, 0, 0, 0, 1, 1]).is_err());
        assert!(failed, "the number of chunk streams is limited");
    }

    proptest! {
        /// Arbitrary bytes do not panic, and incomplete messages are counted correctly.
        #[test]
        fn arbitrary_bytes_do_not_panic(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        ) {
            let mut filter = MessageFilter::new();
            for piece in pieces {
                if filter.push(&piece).is_err() {
                    break;
                }
                let kept: usize = filter.streams.values().map(|stream| stream.payload.len()).sum();
                prop_assert_eq!(kept, filter.incomplete);
            }
        }

        /// Messages in chunks of any size, received in pieces of any size, are forwarded unchanged.
        #[test]
        fn messages_are_forwarded_unchanged(
            lengths in prop::collection::vec(1usize..600, 1..5),
            times in prop::collection::vec(prop_oneof![0u32..1000, 0xff_fff0u32..0x100_0010], 5),
            size in 1usize..300,
            piece in 1usize..500,
        ) {
            let messages: Vec<(u8, u8, u32, Vec<u8>)> = lengths.iter().enumerate()
                .map(|(n, length)| (4 + n as u8, kind::VIDEO, times[n], vec![n as u8; *length])).collect();
            let mut bytes = Vec::new();
            put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &(size as u32).to_be_bytes());
            bytes.extend(interleaved_chunks(&messages, size));
            let (mut filter, mut filtered) = (MessageFilter::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                filtered.extend(filter.push(piece).expect("fine").session);
            }
            let mut expected: Vec<Vec<u8>> =
                messages.iter().map(|(_, kind, time, payload)| session_bytes(&[(*kind, *time, payload)])).collect();
            // Messages are forwarded in the order in which they are complete.
            expected.sort_by_key(|message| {
                let header = 12 + 4 * usize::from(message[1..4] == [255; 3]);
                message.len().saturating_sub(header).div_ceil(size)
            });
            prop_assert_eq!(filtered, expected.concat());
        }
    }
}
