//! Retransmission of the last flight of a DTLS handshake (RFC 6347 section 4.2.4).
//!
//! Owns: copies of the datagrams that were sent. Does not know: keys, sockets. Sent and received datagrams enter,
//! datagrams to retransmit leave. `rtc-dtls` 0.21.1 retransmits too, but any received packet stops its timer, also a
//! retransmission of the remote side whose response was lost; then both sides wait for ever. A receiver discards
//! duplicate records (RFC 6347 section 4.1.2.6).

use std::time::Duration;

use bytes::Bytes;

use crate::time::Timestamp;

/// Retransmission interval of an unanswered flight. ICE has just verified the path, so that the second of RFC 6347
/// section 4.2.4.1 is not needed.
const EVERY: Duration = Duration::from_millis(300);
/// Least time between retransmissions caused by retransmissions of the remote side.
const EVERY_REPEAT: Duration = Duration::from_millis(40);
/// Retransmissions of one flight at most, so that a remote side cannot cause more.
const TIMES: u32 = 20;
/// Datagrams of one flight at most; certificates are small.
const DATAGRAMS: usize = 8;

/// Content types (RFC 5246 section 6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// The last flight of one side, and the last handshake message received.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    sent: Vec<Bytes>,
    /// The flight was answered: the next datagram begins another.
    answered: bool,
    /// The latest handshake message received: number and fragment offset.
    heard: Option<(u16, u32)>,
    /// When the flight was last sent; None until [`Flight::again`] is first called.
    left: Option<Timestamp>,
    times: u32,
}

impl Flight {
    /// Keeps a DTLS datagram that is sent.
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

    /// Handles a received DTLS datagram; true when it is a retransmission.
    pub(crate) fn heard(&mut self, datagram: &[u8]) -> bool {
        self.answered = true;
        let Some(said) = message(datagram) else { return false };
        let repeats = self.heard.is_some_and(|heard| said <= heard);
        self.heard = self.heard.max(Some(said));
        repeats
    }

    /// The flight, if it is to be retransmitted now; `repeated`: the remote side has just retransmitted.
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

/// Number and fragment offset of the first handshake message in a datagram (RFC 6347 section 4.2.2); None if it is
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
    fn a_flight_is_retransmitted_when_the_remote_side_retransmits() {
        let mut flight = Flight::default();
        assert!(!flight.heard(&record(0, 0)));
        flight.sent(&record(0, 0));
        flight.sent(&record(1, 0));
        assert!(!flight.heard(&record(1, 0)) && !flight.heard(&record(1, 9)), "more of the same message");
        assert!(flight.heard(&record(1, 0)));
        assert_eq!(flight.again(at(0), true).len(), 2, "at once");
        assert_eq!(flight.again(at(10), true).len(), 0, "not for every datagram");
        assert_eq!(flight.again(at(50), true).len(), 2);
        flight.sent(&record(2, 0));
        assert_eq!(flight.again(at(60), true), [Bytes::from(record(2, 0))], "the next flight has replaced it");
    }

    #[test]
    fn a_flight_is_retransmitted_by_time_and_a_bounded_number_of_times() {
        let mut flight = Flight::default();
        flight.sent(&record(0, 0));
        flight.sent(&[21, 254, 253]);
        assert_eq!(flight.again(at(0), false).len(), 0);
        assert_eq!(flight.again(at(299), false).len(), 0);
        let times = (1..100).filter(|n| flight.again(at(n * 300), false).len() == 1).count();
        assert_eq!(times, TIMES as usize);
    }

    #[test]
    fn encrypted_or_truncated_records_are_no_retransmission() {
        let mut flight = Flight::default();
        let mut encrypted = record(0, 0);
        encrypted[4] = 1;
        for datagram in [&encrypted[..], &record(0, 0)[..20], &[], &[HANDSHAKE]] {
            assert!(!flight.heard(datagram) && !flight.heard(datagram));
        }
    }
}
