//! One session at another WebRTC server, by WHIP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::sleep;

use super::progress::{Progress, ticks};
use super::queue::{Body, Piece};
use super::sender::{Ended, Sender};
use crate::client;
use crate::client::connection::{Connection, Setup};
use crate::client::description::{Answer, Offer};
use crate::client::signalling::{self, SignallingError};
use crate::destination::Web;
use crate::dial;
use crate::media::{AUDIO_RATE, VIDEO_CLOCK};
use crate::sdp::Direction;
use crate::time::{self, Moment};
use crate::transport::ice::Credentials;

/// Longest datagram taken, in bytes.
const DATAGRAM_MAX: usize = 2048;

impl From<SignallingError> for Ended {
    fn from(error: SignallingError) -> Self {
        match error {
            SignallingError::Dial(error) => error.into(),
            SignallingError::Refused(_) => Self::Refused(error.to_string()),
            SignallingError::Failed(_) => Self::Broken(error.to_string()),
        }
    }
}

/// Sends until it ends.
pub(super) async fn send(server: &Web, sender: &Sender, progress: &mut Progress) -> Ended {
    let begun = tokio::select! {
        begun = begin(server, sender) => begun,
        () = sender.feed.finished() => return Ended::Finished,
    };
    let (connection, socket, session) = match begun {
        Ok(begun) => begun,
        Err(ended) => return ended,
    };
    let ended = run(connection, &socket, sender, progress).await;
    session.end().await;
    match ended {
        Ok(()) => Ended::Finished,
        Err(ended) => ended,
    }
}

/// Offers, posts, and reads the answer.
async fn begin(server: &Web, sender: &Sender) -> Result<(Connection, UdpSocket, signalling::Session), Ended> {
    let broken = |what: &str, error: &dyn std::fmt::Display| Ended::Broken(format!("{what}: {error}"));
    let far = dial::resolve(&server.endpoint, &sender.guard).await?;
    let own = own_address(far).await.map_err(|error| broken("there is no way to the server", &error))?;
    let socket = UdpSocket::bind((own, 0)).await.map_err(|error| broken("no socket", &error))?;
    let address = socket.local_addr().map_err(|error| broken("no socket", &error))?;
    let identity = client::identity().map_err(|error| broken("no certificate", &error))?;
    let ice = Credentials::random();
    let (audio_ssrc, video_ssrc) = (rand::random(), rand::random());
    let codec = sender.stream.key.codec;
    let offer = Offer {
        direction: Direction::SendOnly,
        codec,
        ice: &ice,
        fingerprint: &identity.fingerprint,
        addresses: &[address],
        audio_ssrc,
        video_ssrc,
    };
    let token = sender.destination.token();
    let session = signalling::begin(server, token, &sender.guard, &offer.sdp()).await?;
    let answer = Answer::parse(&session.answer).and_then(|mut answer| {
        // A server is not to send us to addresses that we would not go to by ourselves.
        let all = answer.candidates.clone();
        answer.candidates.retain(|to| sender.guard.check(to.ip()).is_ok());
        let refused = all.first().and_then(|to| sender.guard.check(to.ip()).err());
        match refused.filter(|_| answer.candidates.is_empty()) {
            Some(refused) => Err(format!("the server receives media where nothing may be sent: {refused}")),
            None => Ok(answer),
        }
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            session.end().await;
            return Err(Ended::Broken(why));
        }
    };
    let setup = Setup {
        identity: &identity,
        ice,
        answer,
        direction: Direction::SendOnly,
        codec,
        audio_ssrc,
        video_ssrc,
        keeps_frames: false,
    };
    Ok((Connection::new(setup, time::now()), socket, session))
}

/// The address of ours that faces another one. Nothing is sent: the system only looks for the way.
async fn own_address(far: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((any, 0)).await?;
    probe.connect(far).await?;
    Ok(probe.local_addr()?.ip())
}

async fn run(
    mut connection: Connection,
    socket: &UdpSocket,
    sender: &Sender,
    progress: &mut Progress,
) -> Result<(), Ended> {
    let feed = &sender.feed;
    // Media counts from here: what is older is of no use to somebody who has just connected.
    let begun = time::now();
    let mut datagram = vec![0; DATAGRAM_MAX];
    let mut open = false;
    loop {
        let moment = Moment::present();
        connection.tick(moment);
        flush(&mut connection, socket).await;
        if let Some(why) = connection.over() {
            return Err(Ended::Broken(why.to_owned()));
        }
        if connection.connected().is_some() && !open {
            open = true;
            feed.with(|queue| queue.set_open(true));
        }
        if connection.take_keyframe_wanted() {
            sender.desk.want_keyframe(0);
        }
        let pause = connection.deadline(moment.now).since(moment.now).max(Duration::from_millis(1));
        tokio::select! {
            received = socket.recv_from(&mut datagram) => {
                // An error belongs to a datagram before; the connection finds out by itself whether anybody is there.
                if let Ok((length, from)) = received {
                    connection.handle(Moment::present(), from, &datagram[..length]);
                }
            }
            piece = feed.next(), if open => {
                let Some(piece) = piece else {
                    connection.close(Moment::present());
                    flush(&mut connection, socket).await;
                    return Ok(());
                };
                let (at, size) = match &piece {
                    Piece::Video { time, .. } => (ticks(*time, VIDEO_CLOCK), piece.size()),
                    Piece::Sound { time, .. } => (ticks(*time, AUDIO_RATE), piece.size()),
                };
                let after = (sender.epoch + at).since(begun);
                match &piece {
                    Piece::Video { body: Body::Packets(packets), .. } => connection.send_frame(packets, after),
                    Piece::Sound { data, .. } => connection.send_sound(data.clone(), after, None),
                    Piece::Video { body: Body::Whole(_), .. } => continue,
                }
                flush(&mut connection, socket).await;
                progress.sent(&piece, size);
            }
            () = sleep(pause) => {}
            () = feed.finished(), if !open => return Ok(()),
        }
    }
}

async fn flush(connection: &mut Connection, socket: &UdpSocket) {
    while let Some((to, datagram)) = connection.poll() {
        // A datagram that is not taken is lost, as any may be.
        if let Err(error) = socket.send_to(&datagram, to).await {
            tracing::trace!(%error, "a datagram is not sent");
        }
    }
}
