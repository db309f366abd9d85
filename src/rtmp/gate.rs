//! The gate before the crate's sessions: chunks come in as strangers send them, and leave as whole messages that cannot
//! hurt.
//!
//! Owns: the chunk stream of one direction (Adobe's RTMP specification 1.0, section 5.3), limits of every size, which
//! messages go on, and when to acknowledge. Does not know: what commands mean. In: bytes. Out: the same messages, each
//! in one chunk, for a session that was told of a huge chunk size; see the module's doc for why.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, BytesMut};

use super::RtmpError;

/// Most chunk streams that one side may use; everybody uses less than ten.
const STREAMS_MAX: usize = 64;
/// Largest audio or video message: a keyframe of 1080p has a tenth of it.
const MEDIA_MAX: usize = 4 << 20;
/// Largest other message.
const CONTROL_MAX: usize = 64 << 10;
/// Most bytes of unfinished messages.
const UNFINISHED_MAX: usize = 8 << 20;
/// Deepest nesting of values in a command; players and encoders nest twice.
const DEPTH_MAX: usize = 8;
/// Most values in a command.
const VALUES_MAX: usize = 1024;
/// A timestamp field that means: the timestamp stands behind the header.
const EXTENDED: u32 = 0xff_ffff;
/// Chunk stream of what we say beside the crate's sessions, which use 2 to 6.
pub(super) const OWN_STREAM: u8 = 7;
/// Type of a command in AMF0.
pub(super) const COMMAND: u8 = kind::COMMAND;

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

/// What the other side sends, one direction of one connection.
pub(super) struct Gate {
    buffer: BytesMut,
    chunk_size: usize,
    streams: BTreeMap<u32, ChunkStream>,
    unfinished: usize,
    /// After how many bytes the other side wants to hear of them.
    window: Option<u32>,
    received: u64,
    acknowledged: u64,
}

#[derive(Default)]
struct ChunkStream {
    timestamp: u32,
    /// Timestamp field of the last header.
    field: u32,
    /// Timestamp or difference that the field stood for.
    delta: u32,
    length: usize,
    kind: u8,
    message_stream: u32,
    payload: BytesMut,
}

/// What goes on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// For the session.
    pub(super) session: Vec<u8>,
    /// For the other side.
    pub(super) reply: Vec<u8>,
}

/// The header of a chunk, as far as it was written.
struct Header {
    stream: u32,
    /// Timestamp field, and the timestamp or difference it stands for.
    time: Option<(u32, u32)>,
    /// Length and type of the message.
    message: Option<(usize, u8)>,
    message_stream: Option<u32>,
    /// Bytes of it.
    length: usize,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            chunk_size: 128,
            streams: BTreeMap::new(),
            unfinished: 0,
            window: None,
            received: 0,
            acknowledged: 0,
        }
    }

    /// The first bytes for the session: from now on every message is one chunk.
    pub(super) fn preamble() -> Vec<u8> {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &0x7fff_ffffu32.to_be_bytes());
        bytes
    }

    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Passed, RtmpError> {
        let mut passed = Passed::default();
        self.buffer.extend_from_slice(bytes);
        self.received += bytes.len() as u64;
        while self.chunk(&mut passed.session)? {}
        if let Some(window) = self.window
            && self.received - self.acknowledged >= u64::from(window)
        {
            self.acknowledged = self.received;
            put_message(&mut passed.reply, OWN_STREAM, 3, 0, 0, &(self.received as u32).to_be_bytes());
        }
        Ok(passed)
    }

    /// Takes one chunk off the buffer; false when it is not whole yet.
    fn chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, RtmpError> {
        let field_of = |id: u32| self.streams.get(&id).map(|stream| stream.field);
        let Some(header) = header(&self.buffer, field_of) else { return Ok(false) };
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
            self.unfinished -= stream.payload.len();
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
        self.unfinished += data.len();
        if self.unfinished > UNFINISHED_MAX {
            return Err(RtmpError::TooLarge(self.unfinished));
        }
        if stream.payload.len() == length {
            self.unfinished -= length;
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
        let goes_on = match kind {
            kind::SET_CHUNK_SIZE => {
                let size = number().filter(|size| (1..=0x7fff_ffff).contains(size));
                self.chunk_size = size.ok_or(RtmpError::Chunk("it sets a chunk size of nothing"))? as usize;
                false
            }
            kind::ABORT => {
                if let Some(stream) = number().and_then(|id| self.streams.get_mut(&id)) {
                    self.unfinished -= stream.payload.len();
                    stream.payload.clear();
                }
                false
            }
            kind::WINDOW_SIZE => {
                self.window = number().filter(|size| *size > 0);
                false
            }
            // What the session knows, and long enough for it; anything else is for players.
            kind::USER_CONTROL => match payload {
                [0, 3, rest @ ..] => rest.len() >= 8,
                [0, 0..=2 | 4 | 6 | 7, rest @ ..] => rest.len() >= 4,
                _ => false,
            },
            kind::AUDIO | kind::VIDEO => true,
            kind::DATA | kind::DATA_AMF3 => values(payload).is_some_and(|values| values >= 1),
            kind::COMMAND => values(payload).is_some_and(|values| values >= 3),
            kind::COMMAND_AMF3 => {
                values(payload.strip_prefix(&[0]).unwrap_or(payload)).is_some_and(|values| values >= 3)
            }
            _ => false,
        };
        if goes_on {
            put_message(out, 3, kind, timestamp, message_stream, payload);
        }
        Ok(())
    }
}

/// Reads a chunk's header (section 5.3.1); None while it is not whole. `field_of` is the timestamp field that a chunk
/// stream's last header had.
fn header(bytes: &[u8], field_of: impl Fn(u32) -> Option<u32>) -> Option<Header> {
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
    if header.time.map_or_else(|| field_of(stream), |(field, _)| Some(field)) == Some(EXTENDED) {
        let long = rest.try_get_u32().ok()?;
        header.time = header.time.map(|(field, _)| (field, long));
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

/// How many values an AMF0 document (Adobe's specification of AMF0) has; None where it is broken, deeper or larger than
/// anybody needs, or has types that the crate does not read.
fn values(document: &[u8]) -> Option<usize> {
    let mut rest = document;
    let mut budget = VALUES_MAX;
    let mut count = 0;
    while !rest.is_empty() {
        value(&mut rest, DEPTH_MAX, &mut budget)?;
        count += 1;
    }
    Some(count)
}

fn value(rest: &mut &[u8], depth: usize, budget: &mut usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    *budget = budget.checked_sub(1)?;
    match rest.try_get_u8().ok()? {
        // Number, boolean, string.
        0 => skip(rest, 8),
        1 => skip(rest, 1),
        2 => name(rest).map(drop),
        3 => object(rest, depth, budget),
        // Null, undefined.
        5 | 6 => Some(()),
        // An array with names: an object behind a count that means nothing.
        8 => skip(rest, 4).and_then(|()| object(rest, depth, budget)),
        // An array.
        10 => (0..rest.try_get_u32().ok()?).try_for_each(|_| value(rest, depth, budget)),
        _ => None,
    }
}

fn object(rest: &mut &[u8], depth: usize, budget: &mut usize) -> Option<()> {
    while !name(rest)?.is_empty() {
        value(rest, depth, budget)?;
    }
    // The marker of an object's end.
    (rest.try_get_u8().ok()? == 9).then_some(())
}

fn name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(rest.try_get_u16().ok()?);
    let (name, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(name).ok()
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Messages as bytes in chunks of a size, chunk streams taking turns.
    fn interleaved(messages: &[(u8, u8, u32, Vec<u8>)], size: usize) -> Vec<u8> {
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
    fn interleaved_messages_come_out_whole() {
        let (video, audio) = (vec![1; 1000], vec![2; 150]);
        let messages = [(4, kind::VIDEO, 0x0100_0000, video.clone()), (5, kind::AUDIO, 20, audio.clone())];
        let mut gate = Gate::new();
        let mut passed = Vec::new();
        for byte in interleaved(&messages, 128) {
            passed.extend(gate.push(&[byte]).expect("fine").session);
        }
        let whole = [(kind::AUDIO, 20, &audio[..]), (kind::VIDEO, 0x0100_0000, &video[..])];
        assert_eq!(passed, session_bytes(&whole));
        assert_eq!(gate.unfinished, 0);
    }

    #[test]
    fn headers_are_shortened_in_every_way() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 4, kind::VIDEO, 1000, 1, &[1, 2]);
        // A difference, length and type; then only a difference; then nothing.
        bytes.extend([0x44, 0, 0, 40, 0, 0, 1, kind::VIDEO, 3]);
        bytes.extend([0x84, 0, 0, 33, 4]);
        bytes.extend([0xc4, 5]);
        let passed = Gate::new().push(&bytes).expect("fine");
        let times = [(1000, &[1, 2][..]), (1040, &[3]), (1073, &[4]), (1106, &[5])];
        assert_eq!(passed.session, session_bytes(&times.map(|(time, payload)| (kind::VIDEO, time, payload))));
    }

    #[test]
    fn chunk_sizes_aborts_and_acknowledgements_are_dealt_with_here() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 2, kind::WINDOW_SIZE, 0, 0, &300u32.to_be_bytes());
        put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &4096u32.to_be_bytes());
        put_message(&mut bytes, 4, kind::VIDEO, 7, 1, &[9; 300]);
        let mut gate = Gate::new();
        let passed = gate.push(&bytes).expect("fine");
        assert_eq!(passed.session, session_bytes(&[(kind::VIDEO, 7, &[9; 300])]));
        let mut ack = Vec::new();
        put_message(&mut ack, OWN_STREAM, 3, 0, 0, &(bytes.len() as u32).to_be_bytes());
        assert_eq!(passed.reply, ack);

        let mut half = interleaved(&[(4, kind::VIDEO, 8, vec![1; 5000])], 4096);
        half.truncate(4096 + 12);
        put_message(&mut half, 2, kind::ABORT, 0, 0, &4u32.to_be_bytes());
        put_message(&mut half, 4, kind::VIDEO, 9, 1, &[2]);
        assert_eq!(gate.push(&half).expect("fine").session, session_bytes(&[(kind::VIDEO, 9, &[2])]));
        assert_eq!(gate.unfinished, 0);
    }

    fn passes(kind: u8, payload: &[u8]) -> bool {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &100_000u32.to_be_bytes());
        put_message(&mut bytes, 3, kind, 0, 0, payload);
        !Gate::new().push(&bytes).expect("in bounds").session.is_empty()
    }

    #[test]
    fn what_would_hurt_the_session_stays_outside() {
        let connect = [2, 0, 7, b'c', b'o', b'n', b'n', b'e', b'c', b't', 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        assert!(passes(kind::COMMAND, &connect));
        assert!(!passes(kind::COMMAND, &connect[..19]), "two values only: the crate takes three without looking");
        assert!(!passes(kind::COMMAND, &[]), "none");
        let deep: Vec<u8> = connect.iter().copied().chain([3, 0, 1, b'a'].repeat(16_000)).collect();
        assert!(!passes(kind::COMMAND, &deep), "nested until the stack ends");
        let wide: Vec<u8> = connect.iter().copied().chain([5; 60_000]).collect();
        assert!(!passes(kind::COMMAND, &wide), "more values than anybody has");
        let long: Vec<u8> = connect.iter().copied().chain([10, 255, 255, 255, 255]).collect();
        assert!(!passes(kind::COMMAND, &long), "an array without end");
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
        assert!(matches!(Gate::new().push(&header(kind::COMMAND, 65_537)), Err(RtmpError::TooLarge(65_537))));
        assert!(matches!(Gate::new().push(&header(kind::VIDEO, 5 << 20)), Err(RtmpError::TooLarge(_))));
        assert!(matches!(Gate::new().push(&[0xc4, 0]), Err(RtmpError::Chunk(_))), "a chunk of nothing");
        // Many messages that never end.
        let mut gate = Gate::new();
        let mut bytes = Vec::new();
        put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &(3u32 << 20).to_be_bytes());
        gate.push(&bytes).expect("fine");
        let failed = (3..20).any(|stream| {
            let mut bytes = header(kind::VIDEO, 4 << 20);
            bytes[0] = stream;
            bytes.resize(12 + (3 << 20), 0);
            gate.push(&bytes).is_err()
        });
        assert!(failed && gate.unfinished <= UNFINISHED_MAX + (3 << 20));
        let mut gate = Gate::new();
        let failed = (0..=255).any(|id| gate.push(&[0, id, 0, 0, 0, 0, 0, 2, 8, 0, 0, 0, 0, 1, 1]).is_err());
        assert!(failed, "as many chunk streams as there are");
    }

    proptest! {
        /// Whatever comes, in whatever pieces: no panic, and what is kept is bounded.
        #[test]
        fn any_bytes(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut gate = Gate::new();
            for piece in pieces {
                if gate.push(&piece).is_err() {
                    break;
                }
                let kept: usize = gate.streams.values().map(|stream| stream.payload.len()).sum();
                prop_assert_eq!(kept, gate.unfinished);
            }
        }

        /// Chunks of any size, in pieces of any size, carry the messages unchanged.
        #[test]
        fn messages_survive(
            lengths in prop::collection::vec(1usize..600, 1..5),
            times in prop::collection::vec(prop_oneof![0u32..1000, 0xff_fff0u32..0x100_0010], 5),
            size in 1usize..300,
            piece in 1usize..500,
        ) {
            let messages: Vec<(u8, u8, u32, Vec<u8>)> = lengths.iter().enumerate()
                .map(|(n, length)| (4 + n as u8, kind::VIDEO, times[n], vec![n as u8; *length])).collect();
            let mut bytes = Vec::new();
            put_message(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, 0, &(size as u32).to_be_bytes());
            bytes.extend(interleaved(&messages, size));
            let (mut gate, mut passed) = (Gate::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                passed.extend(gate.push(piece).expect("fine").session);
            }
            let mut expected: Vec<Vec<u8>> =
                messages.iter().map(|(_, kind, time, payload)| session_bytes(&[(*kind, *time, payload)])).collect();
            // Those that end first come first.
            expected.sort_by_key(|message| (message.len().saturating_sub(12 + 4 * usize::from(message[1..4] == [255; 3]))).div_ceil(size));
            prop_assert_eq!(passed, expected.concat());
        }
    }
}
