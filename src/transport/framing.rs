//! Datagrams on a stream: each with its length before it (RFC 4571), as ICE over TCP has them (RFC 6544 section 3).
//!
//! Owns: cutting frames out of what came. Does not know: sockets, what frames hold.

use bytes::{Buf, BufMut, BytesMut};

/// Bytes of the length.
const HEAD: usize = 2;

/// The other side sends a frame that is longer than any datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Appends a datagram as a frame. It must have less than 65,536 bytes.
pub(crate) fn put(datagram: &[u8], stream: &mut BytesMut) {
    let length = u16::try_from(datagram.len()).expect("a datagram has less than 65,536 bytes");
    stream.reserve(HEAD + datagram.len());
    stream.put_u16(length);
    stream.put_slice(datagram);
}

/// Takes the first frame out of what came of a stream; None while it is not whole. One without content is nothing.
///
/// # Errors
/// [`TooLong`] as soon as a frame says that it has more than `max` bytes: the stream cannot be followed any further.
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
    fn a_frame_that_is_too_long_is_told_before_it_is_there() {
        let mut stream = BytesMut::from(&[0, 3, 1, 2, 3, 0, 0, 8, 1][..]);
        assert_eq!(take(&mut stream, 2_048), Ok(Some(BytesMut::from(&[1, 2, 3][..]))));
        assert_eq!(take(&mut stream, 2_049), Ok(None), "it may be on its way");
        assert_eq!(take(&mut stream, 2_048), Err(TooLong));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            cuts in proptest::collection::vec(1_usize..100, 1..20),
        ) {
            let mut sent = BytesMut::new();
            datagrams.iter().for_each(|datagram| put(datagram, &mut sent));
            let (mut stream, mut taken, mut cuts) = (BytesMut::new(), Vec::new(), cuts.iter().cycle());
            while !sent.is_empty() {
                let cut = (*cuts.next().expect("for ever")).min(sent.len());
                stream.extend_from_slice(&sent.split_to(cut));
                while let Some(frame) = take(&mut stream, 300).expect("none is too long") {
                    taken.push(frame.to_vec());
                }
            }
            prop_assert_eq!(taken, datagrams);
        }
    }
}
