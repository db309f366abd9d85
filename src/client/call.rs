//! A session at another WebRTC server with the socket it goes over: what begins and drives a [`Connection`].
//!
//! Owns: the socket, the order of offer, POST and answer, that media goes only where the guard lets it, and that ICE begins
//! anew, from an address that we have now, before a server that fell silent is given up. Does not know: what is sent or shown.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::{Connection, Setup};
use super::description::{self, Answer, Offer};
use super::identity;
use super::signalling::{self, Session, SignallingError};
use crate::destination::{Guard, Web};
use crate::dial;
use crate::media::Codec;
use crate::sdp::Direction;
use crate::secret::Secret;
use crate::time::{self, Moment, Timestamp};
use crate::transport;
use crate::transport::ice::Credentials;

/// A server that has said nothing for so long may be elsewhere now, or we: it proves every few seconds that it still wants us.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// And for so long, it is gone.
const SILENT: Duration = Duration::from_secs(12);
/// While a restart is being answered, that is looked for so often.
const LOOK: Duration = Duration::from_millis(20);
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
    guard: Guard,
    datagram: Vec<u8>,
    heard: Timestamp,
    open: bool,
    restart: Restart,
}

/// Where ICE is to begin anew.
struct Anew {
    ice: Credentials,
    socket: UdpSocket,
    answer: JoinHandle<Result<String, SignallingError>>,
}

/// What was tried since the server was last heard.
enum Restart {
    /// Nothing.
    Untried,
    /// It was asked for.
    Asked(Anew),
    /// It is as it is.
    Tried,
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
        let (audio_ssrc, video_ssrc, cname) = (rand::random(), rand::random(), transport::cname());
        let offer = Offer {
            direction,
            codec,
            ice: &ice,
            fingerprint: &identity.fingerprint,
            cname: &cname,
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
            cname,
            keeps_frames,
            keeps_sound,
        };
        let (connection, datagram, heard) = (Connection::new(setup, time::now()), vec![0; DATAGRAM_MAX], time::now());
        let (guard, restart) = (guard.clone(), Restart::Untried);
        Ok(Self { connection, socket, session, guard, datagram, heard, open: false, restart })
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
        let silent = moment.now.since(self.heard);
        if self.open && silent > SILENT {
            return Err("the server no longer answers".to_owned());
        }
        // What was asked for is taken up, though the server may have been heard meanwhile: it knows us by that now.
        if self.open && silent > RESTART_AFTER || matches!(self.restart, Restart::Asked(_)) {
            self.begin_anew(moment.now).await?;
        }
        self.open = self.connection.connected().is_some();
        Ok(())
    }

    /// Asks the server for another ICE session, once, and takes it up when it has agreed.
    ///
    /// # Errors
    /// In words: it has none for us any more.
    async fn begin_anew(&mut self, now: Timestamp) -> Result<(), String> {
        self.restart = match std::mem::replace(&mut self.restart, Restart::Tried) {
            Restart::Untried => {
                // Where there is no way at all there may be one later; until then the old one is as good.
                let own = own_address(self.session.address()).await.ok();
                let Some(socket) = bind(own).await else { return Ok(()) };
                let Ok(address) = socket.local_addr() else { return Ok(()) };
                tracing::debug!("the server is silent: ICE is to begin anew");
                let (session, ice) = (self.session.clone(), Credentials::random());
                let fragment = description::restart(&ice, &[address]);
                let answer = tokio::spawn(async move { session.restart(fragment).await });
                Restart::Asked(Anew { ice, socket, answer })
            }
            Restart::Asked(Anew { ice, socket, answer }) if answer.is_finished() => {
                match answer.await {
                    Ok(Ok(fragment)) => {
                        let (remote, mut candidates) = description::restarted(&fragment)?;
                        candidates.retain(|to| self.guard.check(to.ip()).is_ok());
                        self.connection.restart_ice(ice, remote, candidates, now);
                        self.socket = socket;
                    }
                    // Such sessions are over, or the server is.
                    Ok(Err(SignallingError::Refused(404 | 410) | SignallingError::Failed(_))) => {
                        return Err("the server no longer answers".to_owned());
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "ICE cannot begin anew"),
                    Err(error) => tracing::debug!(%error, "ICE cannot begin anew"),
                }
                Restart::Tried
            }
            as_it_is => as_it_is,
        };
        Ok(())
    }

    /// Waits until a datagram has come or something is due.
    pub(crate) async fn wait(&mut self) {
        let now = time::now();
        let mut pause = self.connection.deadline(now).since(now).max(Duration::from_millis(1));
        if matches!(self.restart, Restart::Asked(_)) {
            pause = pause.min(LOOK);
        }
        // An error belongs to a datagram before; the connection finds out by itself whether anybody is there.
        if let Ok(Ok((length, from))) = timeout(pause, self.socket.recv_from(&mut self.datagram)).await {
            self.heard = time::now();
            if let Restart::Tried = self.restart {
                self.restart = Restart::Untried;
            }
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

/// A socket at an address of ours; None where there is none.
async fn bind(own: Option<IpAddr>) -> Option<UdpSocket> {
    UdpSocket::bind((own?, 0)).await.ok()
}

/// The address of ours that faces another one. Nothing is sent: the system only looks for the way.
async fn own_address(far: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((any, 0)).await?;
    probe.connect(far).await?;
    Ok(probe.local_addr()?.ip())
}
