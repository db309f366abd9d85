//! The last flight of a DTLS handshake, kept to be sent again when it was lost.
//!
//! Owns: copies of datagrams that left. Does not know: keys, sockets. Why it is needed: `rtc-dtls` 0.21.1 keeps its flights and a
//! timer too, but any packet of the other side stops that timer, also one that only repeats what was said because our answer
//! to it was lost; then both sides wait for ever. Copies sent again look like a network that doubles packets: whoever has one
//! drops the other (RFC 6347 section 4.1.2.6).

use std::time::Duration;

use bytes::Bytes;

use crate::time::Timestamp;

/// A flight that nothing has answered is sent again after so long: ICE has just crossed the way, so the second of RFC 6347
/// section 4.2.4.1 need not be waited for.
const EVERY: Duration = Duration::from_millis(300);
/// Those who repeat themselves sooner than this have not heard of the last time.
const EVERY_REPEAT: Duration = Duration::from_millis(40);
/// So often at most: whoever has not heard it by then never will, and nobody makes us send more.
const TIMES: u32 = 20;
/// Datagrams of a flight; certificates are small.
const DATAGRAMS: usize = 8;

/// Content types (RFC 5246 section 6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// One side's flight, and what the other side has said.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    sent: Vec<Bytes>,
    /// The next datagram begins another flight.
    answered: bool,
    /// The furthest of the other side's messages: number and fragment.
    heard: Option<(u16, u32)>,
    /// When it left last; None until that is asked.
    left: Option<Timestamp>,
    times: u32,
}

impl Flight {
    /// A DTLS datagram leaves.
    pub(crate) fn sent(&mut self, datagram: &[u8]) {
        if !datagram.first().is_some_and(|kind| matches!(*kind, CHANGE_CIPHER_SPEC | HANDSHAKE)) {
            return;
        }
        if std::mem::take(&mut self.answered) {
            self.sent.clear();
            (self.left, self.times) = (None, 0);
        }
        if self.sent.len() < DATAGRAMS {
            self.sent.push(Bytes::copy_from_slice(datagram));
        }
    }

    /// A DTLS datagram came; true when it only repeats what was said before.
    pub(crate) fn heard(&mut self, datagram: &[u8]) -> bool {
        self.answered = true;
        let Some(said) = message(datagram) else { return false };
        let repeats = self.heard.is_some_and(|heard| said <= heard);
        self.heard = self.heard.max(Some(said));
        repeats
    }

    /// The flight, when it is time to send it again; `repeated`: the other side has just repeated itself.
    pub(crate) fn again(&mut self, now: Timestamp, repeated: bool) -> &[Bytes] {
        let left = *self.left.get_or_insert(now);
        let every = if repeated { EVERY_REPEAT } else { EVERY };
        let first = repeated && self.times == 0;
        if self.times >= TIMES || !first && now.since(left) < every {
            return &[];
        }
        self.times += 1;
        self.left = Some(now);
        &self.sent
    }
}

/// Number and fragment offset of the first handshake message in a datagram (RFC 6347 section 4.2.2), where it is not
/// encrypted.
fn message(datagram: &[u8]) -> Option<(u16, u32)> {
    let [HANDSHAKE, _, _, 0, 0, ..] = *datagram else { return None };
    let number = datagram.get(17..19)?;
    let offset = datagram.get(19..22)?;
    Some((u16::from_be_bytes([number[0], number[1]]), u32::from_be_bytes([0, offset[0], offset[1], offset[2]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u16, offset: u8) -> Vec<u8> {
        let mut datagram = vec![HANDSHAKE, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 12, 1, 0, 0, 99];
        datagram.extend(number.to_be_bytes());
        datagram.extend([0, 0, offset, 0, 0, 9]);
        datagram
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    #[test]
    fn a_flight_leaves_again_when_the_other_side_repeats_itself() {
        let mut flight = Flight::default();
        assert!(!flight.heard(&record(0, 0)));
        flight.sent(&record(0, 0));
        flight.sent(&record(1, 0));
        assert!(!flight.heard(&record(1, 0)) && !flight.heard(&record(1, 9)), "more of the same message");
        assert!(flight.heard(&record(1, 0)));
        assert_eq!(flight.again(at(0), true).len(), 2, "at once");
        assert_eq!(flight.again(at(10), true).len(), 0, "not at every word");
        assert_eq!(flight.again(at(50), true).len(), 2);
        flight.sent(&record(2, 0));
        assert_eq!(flight.again(at(60), true), [Bytes::from(record(2, 0))], "the next flight has replaced it");
    }

    #[test]
    fn a_flight_leaves_again_by_time_and_not_for_ever() {
        let mut flight = Flight::default();
        flight.sent(&record(0, 0));
        flight.sent(&[21, 254, 253]);
        assert_eq!(flight.again(at(0), false).len(), 0);
        assert_eq!(flight.again(at(299), false).len(), 0);
        let times = (1..100).filter(|n| flight.again(at(n * 300), false).len() == 1).count();
        assert_eq!(times, TIMES as usize);
    }

    #[test]
    fn what_is_encrypted_or_cut_off_says_nothing() {
        let mut flight = Flight::default();
        let mut encrypted = record(0, 0);
        encrypted[4] = 1;
        for datagram in [&encrypted[..], &record(0, 0)[..20], &[], &[HANDSHAKE]] {
            assert!(!flight.heard(datagram) && !flight.heard(datagram));
        }
    }
}
