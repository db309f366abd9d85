//! Framing: a little-endian `u32` length, then the message in postcard.
//!
//! Owns: [`encode_into`] and the incremental [`Decoder`]. Does not know: sockets. In and out: bytes and messages.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message in bytes; a longer one is an error of the other process.
pub const MESSAGE_MAX: usize = 1 << 20;

const HEADER: usize = 4;

/// Why bytes cannot be decoded, or a message not encoded. The stream cannot continue after a decoding error.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Over [`MESSAGE_MAX`].
    #[error("message of {0} bytes exceeds the limit of {MESSAGE_MAX}")]
    TooLong(usize),
    /// The bytes are no message of this version.
    #[error("malformed message: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Appends one framed message to `out`; on an error `out` is unchanged.
///
/// # Errors
/// [`FrameError::TooLong`] if the message exceeds [`MESSAGE_MAX`].
pub fn encode_into<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    if let Err(error) = postcard::to_io(message, &mut *out) {
        out.truncate(start);
        return Err(error.into());
    }
    let length = out.len() - start - HEADER;
    if length > MESSAGE_MAX {
        out.truncate(start);
        return Err(FrameError::TooLong(length));
    }
    out[start..start + HEADER].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// Decodes messages from a stream of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// Appends bytes that were read.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or None until more bytes come.
    ///
    /// # Errors
    /// Any; the stream cannot continue.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let rest = &self.buffer[self.consumed..];
        let Some((header, body)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MESSAGE_MAX {
            return Err(FrameError::TooLong(length));
        }
        if body.len() < length {
            return Ok(None);
        }
        let message = postcard::from_bytes(&body[..length])?;
        self.consumed += HEADER + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::id::SourceId;
    use crate::link::ToMixer;
    use crate::media::SourcePacket;
    use crate::time::Timestamp;

    fn message(sequence: u16, payload: Vec<u8>) -> ToMixer {
        ToMixer::Packet(
            SourceId(7),
            SourcePacket {
                sequence,
                timestamp: 90_000,
                marker: true,
                arrival: Timestamp::from_micros(1),
                captured: None,
                audio_level: None,
                rotation: None,
                colours: None,
                payload: Bytes::from(payload),
            },
        )
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting_of_the_stream(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 1..20),
            cut in 1usize..4000,
        ) {
            let sent: Vec<_> = payloads.into_iter().enumerate().map(|(i, p)| message(i as u16, p)).collect();
            let mut wire = Vec::new();
            for m in &sent {
                encode_into(m, &mut wire).expect("short enough");
            }
            let mut decoder = Decoder::default();
            let mut got: Vec<ToMixer> = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.extend(piece);
                while let Some(m) = decoder.next_message().expect("well formed") {
                    got.push(m);
                }
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.extend(&bytes);
            while let Ok(Some(_)) = decoder.next_message::<ToMixer>() {}
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.extend(&(MESSAGE_MAX as u32 + 1).to_le_bytes());
        assert!(matches!(decoder.next_message::<ToMixer>(), Err(FrameError::TooLong(_))));
        let mut out = vec![1, 2, 3];
        assert!(encode_into(&message(0, vec![0; MESSAGE_MAX + 1]), &mut out).is_err());
        assert_eq!(out, [1, 2, 3]);
    }
}
