//! The minimum cost of a packet: its encryption, and its share of a `sendmmsg`.
//!
//! Owns: that measurement, on loopback, in this process. Does not know: any server. No server can cost less, since
//! every receiver has keys of its own.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::time::Duration;

use bytes::BytesMut;
use rtc::rtp;
use rtc::shared::marshal::Marshal;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

use crate::time;

/// Receivers, with a socket each.
const RECEIVERS: usize = 64;
/// Packets to each receiver.
const ROUNDS: usize = 800;
/// Payload sizes in turn: two audio packets and one video packet, about the mix of the tier `low`.
const SIZES: [usize; 3] = [120, 120, 900];

/// CPU time of this thread per packet.
///
/// # Errors
/// No sockets are available.
pub fn measure() -> io::Result<Duration> {
    let crypto = rtc::crypto::default_provider().map_err(io::Error::other)?;
    let sender = UdpSocket::bind(("127.0.0.1", 0))?;
    let mut receivers = Vec::with_capacity(RECEIVERS);
    for number in 0..RECEIVERS {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.set_nonblocking(true)?;
        let profile = ProtectionProfile::AeadAes128Gcm;
        let key = [number as u8; 16];
        let context = Context::new(&key, &key[..12], profile, None, None, crypto.crypto()).map_err(io::Error::other)?;
        receivers.push((socket.local_addr()?.as_any(), context, socket));
    }
    let mut spent = Duration::ZERO;
    let mut emptied = [0; 2048];
    for round in 0..ROUNDS {
        let header = rtp::Header {
            version: 2,
            payload_type: 96,
            sequence_number: round as u16,
            timestamp: round as u32 * 3_000,
            ssrc: 1,
            ..rtp::Header::default()
        };
        let payload = bytes::Bytes::from(vec![0x55; SIZES[round % SIZES.len()]]);
        let clear = rtp::Packet { header: header.clone(), payload }.marshal().map_err(io::Error::other)?;
        let before = time::thread_cpu();
        let mut batch = Vec::with_capacity(RECEIVERS);
        for (to, context, _) in &mut receivers {
            batch.push((to.clone(), context.encrypt_rtp_with_header(&clear, &header).map_err(io::Error::other)?));
        }
        send(&sender, &batch)?;
        spent += time::thread_cpu().saturating_sub(before);
        // Sending to a full buffer would be cheaper.
        for (_, _, socket) in &receivers {
            while socket.recv(&mut emptied).is_ok() {}
        }
    }
    Ok(spent / (ROUNDS * RECEIVERS) as u32)
}

fn send(socket: &UdpSocket, batch: &[(SocketAddrAny, BytesMut)]) -> io::Result<()> {
    let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|(_, datagram)| [IoSlice::new(datagram)]).collect();
    let mut controls: Vec<_> = batch.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<MMsgHdr<'_>> = batch
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|(((to, _), slices), control)| MMsgHdr::new_with_addr(to, slices, control))
        .collect();
    let mut at = 0;
    while at < messages.len() {
        at += sendmmsg(socket, &mut messages[at..], SendFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_costs_some_microseconds() {
        let floor = measure().expect("there is a loopback");
        assert!(floor > Duration::from_nanos(100) && floor < Duration::from_micros(500), "{floor:?}");
    }
}
