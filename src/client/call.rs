//! A session at another WebRTC server with the socket it goes over: what begins and drives a [`Connection`].
//!
//! Owns: the socket, the order of offer, POST and answer, and that media goes only where the guard lets it. Does not know:
//! what is sent or shown.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::connection::{Connection, Setup};
use super::description::{Answer, Offer};
use super::identity;
use super::signalling::{self, Session, SignallingError};
use crate::destination::{Guard, Web};
use crate::dial;
use crate::media::Codec;
use crate::sdp::Direction;
use crate::secret::Secret;
use crate::time::{self, Moment, Timestamp};
use crate::transport::ice::Credentials;

/// A server that has said nothing for so long is gone: it proves every few seconds that it still wants us.
const SILENT: Duration = Duration::from_secs(10);
/// Longest datagram taken, in bytes.
const DATAGRAM_MAX: usize = 2048;

/// What is to be asked of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) server: &'a Web,
    pub(crate) token: Option<&'a Secret>,
    pub(crate) guard: &'a Guard,
    pub(crate) direction: Direction,
    pub(crate) codec: Codec,
    /// What is received is collected: pictures and sound.
    pub(crate) keeps_media: bool,
}

/// A session that runs.
pub(crate) struct Call {
    pub(crate) connection: Connection,
    socket: UdpSocket,
    session: Session,
    datagram: Vec<u8>,
    heard: Timestamp,
    open: bool,
}

impl Call {
    /// Offers, posts, and reads the answer.
    pub(crate) async fn begin(wish: Wish<'_>) -> Result<Self, SignallingError> {
        let Wish { server, token, guard, direction, codec, keeps_media } = wish;
        let failed = |what: &str, error: &dyn Display| SignallingError::Failed(format!("{what}: {error}"));
        let far = dial::resolve(&server.endpoint, guard).await?;
        let own = own_address(far).await.map_err(|error| failed("there is no way to it", &error))?;
        let socket = UdpSocket::bind((own, 0)).await.map_err(|error| failed("no socket", &error))?;
        let address = socket.local_addr().map_err(|error| failed("no socket", &error))?;
        let identity = identity().map_err(|error| failed("no certificate", &error))?;
        let ice = Credentials::random();
        let (audio_ssrc, video_ssrc) = (rand::random(), rand::random());
        let offer = Offer {
            direction,
            codec,
            ice: &ice,
            fingerprint: &identity.fingerprint,
            addresses: &[address],
            audio_ssrc,
            video_ssrc,
        };
        let session = signalling::begin(server, token, guard, &offer.sdp()).await?;
        let answer = match allowed(&session.answer, guard) {
            Ok(answer) => answer,
            Err(why) => {
                session.end().await;
                return Err(SignallingError::Failed(why));
            }
        };
        let (keeps_frames, keeps_sound) = (keeps_media, keeps_media);
        let setup = Setup {
            identity: &identity,
            ice,
            answer,
            direction,
            codec,
            audio_ssrc,
            video_ssrc,
            keeps_frames,
            keeps_sound,
        };
        let (connection, datagram, heard) = (Connection::new(setup, time::now()), vec![0; DATAGRAM_MAX], time::now());
        Ok(Self { connection, socket, session, datagram, heard, open: false })
    }

    /// Whether the connection is up.
    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    /// Does what is due and sends what there is to send.
    ///
    /// # Errors
    /// In words: it is over.
    pub(crate) async fn drive(&mut self) -> Result<(), String> {
        let moment = Moment::present();
        self.connection.tick(moment);
        self.flush().await;
        if let Some(why) = self.connection.over() {
            return Err(why.to_owned());
        }
        if self.open && moment.now.since(self.heard) > SILENT {
            return Err("the server no longer answers".to_owned());
        }
        self.open = self.connection.connected().is_some();
        Ok(())
    }

    /// Waits until a datagram has come or something is due.
    pub(crate) async fn wait(&mut self) {
        let now = time::now();
        let pause = self.connection.deadline(now).since(now).max(Duration::from_millis(1));
        // An error belongs to a datagram before; the connection finds out by itself whether anybody is there.
        if let Ok(Ok((length, from))) = timeout(pause, self.socket.recv_from(&mut self.datagram)).await {
            self.heard = time::now();
            self.connection.handle(Moment::present(), from, &self.datagram[..length]);
        }
    }

    /// Sends what there is to send.
    pub(crate) async fn flush(&mut self) {
        while let Some((to, datagram)) = self.connection.poll() {
            // A datagram that is not taken is lost, as any may be.
            if let Err(error) = self.socket.send_to(&datagram, to).await {
                tracing::trace!(%error, "a datagram is not sent");
            }
        }
    }

    /// Says goodbye, to the connection and to the server.
    pub(crate) async fn end(mut self) {
        self.connection.close(Moment::present());
        self.flush().await;
        self.session.end().await;
    }
}

/// The answer without addresses that we would not go to by ourselves.
fn allowed(answer: &str, guard: &Guard) -> Result<Answer, String> {
    let mut answer = Answer::parse(answer)?;
    let all = answer.candidates.clone();
    answer.candidates.retain(|to| guard.check(to.ip()).is_ok());
    let refused = all.first().and_then(|to| guard.check(to.ip()).err());
    match refused.filter(|_| answer.candidates.is_empty()) {
        Some(refused) => Err(format!("the server's media is where nothing may be sent: {refused}")),
        None => Ok(answer),
    }
}

/// The address of ours that faces another one. Nothing is sent: the system only looks for the way.
async fn own_address(far: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((any, 0)).await?;
    probe.connect(far).await?;
    Ok(probe.local_addr()?.ip())
}
