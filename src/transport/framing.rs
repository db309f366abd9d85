//! Datagrams on a byte stream, each after its 16-bit length (RFC 4571), for ICE over TCP (RFC 6544 section 3).
//!
//! Owns: the framing. Does not know: sockets, the content of frames. Datagrams enter and leave by a stream buffer.

use bytes::{Buf, BufMut, BytesMut};

/// Bytes of the length field.
const HEAD: usize = 2;

/// A frame is longer than any datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Appends a datagram as a frame. It must have less than 65,536 bytes.
pub(crate) fn put(datagram: &[u8], stream: &mut BytesMut) {
    let length = u16::try_from(datagram.len()).expect("a datagram has less than 65,536 bytes");
    stream.reserve(HEAD + datagram.len());
    stream.put_u16(length);
    stream.put_slice(datagram);
}

/// Takes the first frame from received bytes; None while it is incomplete. Empty frames are skipped.
///
/// # Errors
/// [`TooLong`] as soon as a length above `max` is received: the stream cannot be parsed any further.
pub(crate) fn take(stream: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, TooLong> {
    loop {
        let Some(head) = stream.first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*head));
        if length > max {
            return Err(TooLong);
        }
        if stream.len() < HEAD + length {
            return Ok(None);
        }
        stream.advance(HEAD);
        if length > 0 {
            return Ok(Some(stream.split_to(length)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_length_field() {
        let mut stream = BytesMut::from(&[0, 3, 1, 2, 3, 0, 0, 8, 1][..]);
        assert_eq!(take(&mut stream, 2_048), Ok(Some(BytesMut::from(&[1, 2, 3][..]))));
        assert_eq!(take(&mut stream, 2_049), Ok(None), "the rest may still arrive");
        assert_eq!(take(&mut stream, 2_048), Err(TooLong));
    }

    proptest! {
        #[test]
        fn frames_are_independent_of_how_the_stream_is_cut(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            cuts in proptest::collection::vec(1_usize..100, 1..20),
        ) {
            let mut sent = BytesMut::new();
            datagrams.iter().for_each(|datagram| put(datagram, &mut sent));
            let (mut stream, mut taken, mut cuts) = (BytesMut::new(), Vec::new(), cuts.iter().cycle());
            while !sent.is_empty() {
                let cut = (*cuts.next().expect("endless")).min(sent.len());
                stream.extend_from_slice(&sent.split_to(cut));
                while let Some(frame) = take(&mut stream, 300).expect("none is too long") {
                    taken.push(frame.to_vec());
                }
            }
            prop_assert_eq!(taken, datagrams);
        }
    }
}
