//! RTP in both directions.
//!
//! Owns: packets from SRTP to the sink, and from the subscriber or the RTX responder to SRTP. Does not know: RTCP, ICE.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use rtc::rtp;
use rtc::shared::marshal::{Marshal, MarshalSize, Unmarshal};

use super::super::extensions::ExtensionIds;
use super::super::keyframe::keyframe_size;
use super::super::rtx::Retransmission;
use super::{Connection, Out};
use crate::fanout::Outgoing;
use crate::media::{Colours, Kind, Matrix, Rotation, SourcePacket};
use crate::time::{Moment, Timestamp};
use crate::transport::secure::Secure;
use crate::transport::srtp;

impl Connection {
    /// Takes an SRTP packet.
    pub(super) fn rtp(&mut self, moment: Moment, datagram: BytesMut) {
        let taken = self.take_rtp(moment, datagram);
        let counter = if taken.is_some() { &self.counters.packets_in } else { &self.counters.unrouted_in };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// None for a packet that is not authentic, or of no source.
    fn take_rtp(&mut self, moment: Moment, mut datagram: BytesMut) -> Option<()> {
        let keys = self.secure.as_mut().and_then(Secure::keys)?;
        keys.decrypt_rtp(&mut datagram).ok()?;
        self.take_decrypted_rtp(moment, datagram.freeze())
    }

    /// None for a packet that is malformed, or of no source.
    pub(super) fn take_decrypted_rtp(&mut self, moment: Moment, mut payload: Bytes) -> Option<()> {
        let now = moment.now;
        let header = rtp::Header::unmarshal(&mut payload).ok()?;
        if header.padding {
            // RFC 3550 section 5.1: the last byte counts the padding, itself included.
            let padding = usize::from(*payload.last()?);
            payload.truncate(payload.len().checked_sub(padding)?);
        }
        self.received = now;
        if self.ssrcs.has(header.ssrc) {
            // A client that mirrors our packets would fill the mix with itself (RFC 3550 section 8.2).
            return None;
        }
        if let Some(feedback) = &mut self.feedback {
            feedback.received(&header, moment);
        }
        let route = self.sources.route(&header, now)?;
        let source = &mut self.sources.sources[route.source];
        let encoding = &mut source.encodings[route.encoding];
        let mut sequence = header.sequence_number;
        if route.is_rtx {
            // An empty one only probes the path.
            if payload.is_empty() {
                return Some(());
            }
            // RFC 4588 section 4: the original sequence number stands before the payload.
            sequence = payload.try_get_u16().ok()?;
            if let Some(nack) = &mut encoding.nack {
                nack.recovered(sequence, now);
            }
        } else {
            encoding.statistics.received(sequence, header.timestamp, route.codec.clock_rate(), now);
            if let Some(nack) = &mut encoding.nack {
                nack.received(sequence, now);
            }
        }
        self.counters.bytes_in.fetch_add(payload.len() as u64, Ordering::Relaxed);
        let captured = encoding.capture.captured(header.timestamp, route.codec.clock_rate(), now);
        let packet = source_packet(&header, sequence, payload, self.sources.extensions(), now);
        let packet = SourcePacket { captured, ..packet };
        let source = &mut self.sources.sources[route.source];
        let Some(simulcast) = &mut source.simulcast else {
            self.sink.packet(&source.mid, source.kind, route.codec, packet);
            self.has_unflushed_media = true;
            return Some(());
        };
        let keyframe = keyframe_size(route.codec, &packet.payload);
        let mut spliced = std::mem::take(&mut self.spliced);
        if simulcast.take(route.encoding, route.codec, packet, keyframe, now, &mut spliced) {
            self.sink.encoding(source.kind, source.encodings[route.encoding].rid());
        }
        if spliced.is_empty() {
            self.sink.unselected();
        } else {
            self.has_unflushed_media = true;
        }
        for (codec, packet) in spliced.drain(..) {
            self.sink.packet(&source.mid, source.kind, codec, packet);
        }
        self.spliced = spliced;
        Some(())
    }

    /// Whether [`Connection::flush_media`] is needed.
    pub(in crate::peer) fn has_unflushed_media(&self) -> bool {
        self.has_unflushed_media
    }

    /// Passes on the received media that waits, see [`SourceSink::flush`](crate::peer::SourceSink::flush).
    pub(in crate::peer) fn flush_media(&mut self) {
        if std::mem::take(&mut self.has_unflushed_media) {
            self.sink.flush();
        }
    }

    /// Sends what the subscriber has, and what was requested again, as fast as it may leave.
    pub(in crate::peer) fn pump(&mut self, now: Timestamp, out: &mut Out) {
        self.paced = None;
        if !self.connected || self.over {
            return;
        }
        let Some(to) = self.destination(now) else { return };
        self.retransmit(now, to, out);
        loop {
            let wait = self.pacer.wait(now);
            // Audio never waits for the pacer.
            let outgoing = if wait.is_none() { self.subscriber.pop() } else { self.subscriber.pop_audio() };
            let Some(outgoing) = outgoing else {
                let video = wait.filter(|_| self.subscriber.has_video()).map(|wait| now + wait);
                self.paced = [self.paced, video].into_iter().flatten().min();
                return;
            };
            let (stream, packet, resumes, contributors) = match &outgoing {
                Outgoing::Audio(packet, contributors) => (self.audio.as_mut(), packet, false, Some(contributors)),
                Outgoing::Video { packet, resumes } => (self.video.as_mut(), packet, *resumes, None),
                Outgoing::Left(csrc) => {
                    if self.descriptions.left(*csrc) {
                        self.next_report = now;
                    }
                    continue;
                }
            };
            let Some(stream) = stream else { continue };
            contributors.into_iter().for_each(|contributors| self.descriptions.sent(contributors));
            match stream.format().codec.kind() {
                Kind::Audio => self.pacer.sound(packet.payload.len(), now),
                Kind::Video => self.pacer.sent(packet.payload.len()),
            }
            let packet = stream.packet(packet, resumes, contributors, self.sent.next_sequence(), now);
            self.counters.packets_out.fetch_add(1, Ordering::Relaxed);
            self.counters.bytes_out.fetch_add(packet.payload.len() as u64, Ordering::Relaxed);
            self.send(to, &packet.header, &[&packet.payload], now, out);
            let number = self.sent.next_sequence();
            if let Some(fec) = self.video.as_mut().and_then(|video| video.fec_packet(number)) {
                self.pacer.sent(fec.payload.len());
                self.send(to, &fec.header, &[&fec.payload], now, out);
            }
        }
    }

    /// Sends what the client has requested again, as far as the pacer allows.
    pub(super) fn retransmit(&mut self, now: Timestamp, to: SocketAddr, out: &mut Out) {
        loop {
            let Some(video) = &mut self.video else { return };
            match video.retransmission(&mut self.pacer, self.sent.next_sequence(), now) {
                Retransmission::None => return,
                Retransmission::Wait(until) => {
                    self.paced = Some(self.paced.map_or(until, |paced| paced.min(until)));
                    return;
                }
                Retransmission::Packet { header, original: Some(original), payload } => {
                    self.send(to, &header, &[&original, &payload], now, out);
                }
                // The very same bytes as before: another plaintext under the same SRTP index would give the key away
                // (RFC 7714 section 8.1), so it keeps its transport-wide number too.
                Retransmission::Packet { header, original: None, payload } => {
                    self.encrypt(to, &header, &[&payload], out);
                }
            }
        }
    }

    /// Encrypts and sends a packet that has a new sequence number.
    fn send(&mut self, to: SocketAddr, header: &rtp::Header, payload: &[&[u8]], now: Timestamp, out: &mut Out) {
        if let Some(size) = self.encrypt(to, header, payload, out)
            && self.numbers_packets
        {
            self.sent.sent(size, now);
        }
    }

    /// Encrypts and sends a packet; gives its size before, in bytes.
    fn encrypt(&mut self, to: SocketAddr, header: &rtp::Header, payload: &[&[u8]], out: &mut Out) -> Option<usize> {
        let keys = self.secure.as_mut().and_then(Secure::keys)?;
        let header_size = header.marshal_size();
        let size = header_size + payload.iter().map(|part| part.len()).sum::<usize>();
        let mut packet = BytesMut::with_capacity(size + srtp::OVERHEAD_MAX);
        packet.resize(header_size, 0);
        header.marshal_to(&mut packet).expect("the buffer has the header's size");
        payload.iter().for_each(|part| packet.extend_from_slice(part));
        match keys.encrypt_rtp(&mut packet) {
            Ok(()) => {
                out.push((to, packet));
                Some(size)
            }
            Err(error) => {
                tracing::debug!(%error, "a packet could not be encrypted");
                None
            }
        }
    }
}

fn source_packet(
    header: &rtp::Header,
    sequence: u16,
    payload: Bytes,
    extensions: &ExtensionIds,
    arrival: Timestamp,
) -> SourcePacket {
    let whole = |id: Option<u8>| header.get_extension(id?);
    let first = |id: Option<u8>| whole(id)?.first().copied();
    SourcePacket {
        sequence,
        timestamp: header.timestamp,
        marker: header.marker,
        arrival,
        // The upper bit says "voice", by the client's own judgement (RFC 6464).
        captured: None,
        audio_level: first(extensions.audio_level).map(|byte| byte & 0x7f),
        rotation: first(extensions.orientation).map(rotation),
        colours: whole(extensions.color_space).and_then(|bytes| colours(&bytes)),
        payload,
    }
}

/// The two rotation bits of 3GPP TS 26.114 section 7.4.5: how far to turn clockwise before showing.
fn rotation(byte: u8) -> Rotation {
    match byte & 3 {
        0 => Rotation::None,
        1 => Rotation::Right,
        2 => Rotation::Half,
        _ => Rotation::Left,
    }
}

/// The meaning of samples by the color-space extension of WebRTC: primaries, transfer, matrix (each a code point of
/// ITU-T H.273), then range and chroma siting in one byte. Senders attach it to keyframes.
fn colours(bytes: &[u8]) -> Option<Colours> {
    let &[_, _, matrix, range_and_siting, ..] = bytes else { return None };
    // BT.709's weights are close to those of its successors (BT.2020); an unknown matrix counts as the default.
    let matrix = if matches!(matrix, 1 | 9 | 10) { Matrix::Bt709 } else { Matrix::Bt601 };
    Some(Colours { matrix, full_range: (range_and_siting >> 4) & 3 == 2 })
}
