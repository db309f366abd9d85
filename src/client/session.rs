//! A WHIP or WHEP session at another server, with its UDP socket: opens a [`Connection`] and drives it.
//!
//! Owns: the socket, the order of offer, POST and answer, the destination guard for media, and the ICE restart that is
//! tried before a silent server is given up. Does not know: what is sent or shown. In: a [`SessionConfig`], then media
//! by [`Session::connection`]. Out: received media and keyframe requests by the same field.
//!
//! The guard judges each candidate of an answer, and the source address of each datagram: a peer-reflexive candidate
//! (RFC 8445 section 7.3.1.3) is learned from a datagram, and checks are sent to it.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::{Collect, Connection};
use super::description::{self, Answer, LocalDescription};
use super::identity;
use super::signalling::{self, SessionResource, SignallingError};
use crate::destination::{Guard, Web};
use crate::dial;
use crate::media::Codec;
use crate::sdp::Direction;
use crate::secret::Secret;
use crate::time::{self, Moment, Timestamp};
use crate::transport::ice::Credentials;

/// Without a datagram from the server for so long, ICE is restarted once: either side may have another address now. The
/// server sends a consent check every few seconds.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// Without a datagram from the server for so long, the session is over.
const SERVER_TIMEOUT: Duration = Duration::from_secs(12);
/// How often a pending ICE restart is polled for its answer.
const RESTART_POLL: Duration = Duration::from_millis(20);
/// Longest datagram received, in bytes.
const DATAGRAM_MAX: usize = 2048;

/// What to open at which server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionConfig<'a> {
    pub(crate) server: &'a Web,
    pub(crate) token: Option<&'a Secret>,
    pub(crate) guard: &'a Guard,
    pub(crate) direction: Direction,
    pub(crate) codec: Codec,
    /// Received media is kept for the caller.
    pub(crate) collect: Collect,
}

/// An open session.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    socket: UdpSocket,
    resource: SessionResource,
    guard: Guard,
    datagram: Vec<u8>,
    last_received: Timestamp,
    connected: bool,
    restart: IceRestart,
}

/// A restart that the server has not answered yet.
struct PendingRestart {
    ice: Credentials,
    socket: UdpSocket,
    answer: JoinHandle<Result<String, SignallingError>>,
}

/// The ICE restart of the present silence.
enum IceRestart {
    /// Not tried since the last datagram.
    Idle,
    /// The PATCH is sent.
    Pending(PendingRestart),
    /// Tried; not again before the next datagram.
    Done,
}

impl Session {
    /// Sends the offer and reads the answer.
    ///
    /// # Errors
    /// The server is not reached, refuses, or answers with addresses that the guard refuses.
    pub(crate) async fn open(config: SessionConfig<'_>) -> Result<Self, SignallingError> {
        let SessionConfig { server, token, guard, direction, codec, collect } = config;
        let failed = |what: &str, error: &dyn Display| SignallingError::Failed(format!("{what}: {error}"));
        let remote = dial::resolve(&server.endpoint, guard).await?;
        let own = dial::local_address(remote).map_err(|error| failed("no route to the server", &error))?;
        let socket = UdpSocket::bind((own, 0)).await.map_err(|error| failed("no UDP socket", &error))?;
        let address = socket.local_addr().map_err(|error| failed("no UDP socket", &error))?;
        let identity = identity().map_err(|error| failed("no certificate", &error))?;
        let local = LocalDescription::new(&identity, direction, codec);
        let resource = signalling::begin(server, token, guard, &local.offer(&[address])).await?;
        let answer = match allowed(&resource.answer, guard).and_then(|answer| local.accept(&answer).map(|()| answer)) {
            Ok(answer) => answer,
            Err(why) => {
                resource.end().await;
                return Err(SignallingError::Failed(why));
            }
        };
        let now = time::now();
        Ok(Self {
            connection: Connection::new(&identity, local, answer, collect, now),
            socket,
            resource,
            guard: guard.clone(),
            datagram: vec![0; DATAGRAM_MAX],
            last_received: now,
            connected: false,
            restart: IceRestart::Idle,
        })
    }

    /// Whether media can be sent.
    pub(crate) const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Runs the timers and sends what is due.
    ///
    /// # Errors
    /// In words: the session is over.
    pub(crate) async fn drive(&mut self) -> Result<(), String> {
        let moment = Moment::present();
        self.connection.tick(moment);
        self.flush().await;
        if let Some(why) = self.connection.close_reason() {
            return Err(why.to_owned());
        }
        let silent = moment.now.since(self.last_received);
        if self.connected && silent > SERVER_TIMEOUT {
            return Err("the server no longer answers".to_owned());
        }
        // A pending restart is finished even if datagrams arrive meanwhile: the server has the new credentials by then.
        if self.connected && silent > RESTART_AFTER || matches!(self.restart, IceRestart::Pending(_)) {
            self.restart_ice(moment.now).await?;
        }
        self.connected = self.connection.connected().is_some();
        Ok(())
    }

    /// Sends the PATCH that restarts ICE, and applies its answer.
    ///
    /// # Errors
    /// In words: the server has no such session any more.
    async fn restart_ice(&mut self, now: Timestamp) -> Result<(), String> {
        self.restart = match std::mem::replace(&mut self.restart, IceRestart::Done) {
            IceRestart::Idle => {
                // Without a route there may be one later; until then the old socket is as good.
                let own = dial::local_address(self.resource.address()).ok();
                let Some(socket) = bind(own).await else { return Ok(()) };
                let Ok(address) = socket.local_addr() else { return Ok(()) };
                tracing::debug!("no datagram from the server: ICE restart requested");
                let (resource, ice) = (self.resource.clone(), Credentials::random());
                let fragment = description::restart(&ice, &[address]);
                let answer = tokio::spawn(async move { resource.restart(fragment).await });
                IceRestart::Pending(PendingRestart { ice, socket, answer })
            }
            IceRestart::Pending(PendingRestart { ice, socket, answer }) if answer.is_finished() => {
                match answer.await {
                    Ok(Ok(fragment)) => {
                        let (remote, mut candidates) = description::restarted(&fragment)?;
                        candidates.retain(|to| self.guard.check(to.ip()).is_ok());
                        self.connection.restart_ice(ice, remote, candidates, now);
                        self.socket = socket;
                    }
                    // 404 and 410: the session is over. A failed request: so is the server.
                    Ok(Err(SignallingError::Refused(404 | 410) | SignallingError::Failed(_))) => {
                        return Err("the server no longer answers".to_owned());
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "ICE restart refused"),
                    Err(error) => tracing::debug!(%error, "ICE restart failed"),
                }
                IceRestart::Done
            }
            unchanged => unchanged,
        };
        Ok(())
    }

    /// Waits for a datagram or the next deadline, and hands the datagram to the connection.
    pub(crate) async fn wait(&mut self) {
        let now = time::now();
        let mut pause = self.connection.deadline(now).since(now).max(Duration::from_millis(1));
        if matches!(self.restart, IceRestart::Pending(_)) {
            pause = pause.min(RESTART_POLL);
        }
        // A socket error belongs to an earlier datagram (ICMP); consent decides whether the server is still there.
        let Ok(Ok((length, from))) = timeout(pause, self.socket.recv_from(&mut self.datagram)).await else { return };
        if let Err(refused) = self.guard.check(from.ip()) {
            tracing::debug!(%refused, "datagram dropped: the guard refuses its source address");
            return;
        }
        self.last_received = time::now();
        if let IceRestart::Done = self.restart {
            self.restart = IceRestart::Idle;
        }
        self.connection.handle(Moment::present(), from, &self.datagram[..length]);
    }

    /// Sends all queued datagrams.
    pub(crate) async fn flush(&mut self) {
        while let Some((to, datagram)) = self.connection.poll() {
            if let Err(error) = self.socket.send_to(&datagram, to).await {
                tracing::trace!(%error, "datagram lost: the socket does not take it");
            }
        }
    }

    /// Sends BYE and close_notify, then deletes the session resource.
    pub(crate) async fn close(mut self) {
        self.connection.close(Moment::present());
        self.flush().await;
        self.resource.end().await;
    }
}

/// The answer without the candidates that the guard refuses.
///
/// # Errors
/// In words: it is no usable answer, or no candidate is left.
fn allowed(answer: &str, guard: &Guard) -> Result<Answer, String> {
    let mut answer = Answer::parse(answer)?;
    let all = answer.candidates.clone();
    answer.candidates.retain(|to| guard.check(to.ip()).is_ok());
    let refused = all.first().and_then(|to| guard.check(to.ip()).err());
    match refused.filter(|_| answer.candidates.is_empty()) {
        Some(refused) => Err(format!("the server's media address is refused: {refused}")),
        None => Ok(answer),
    }
}

/// A socket at an address of ours; None where there is none.
async fn bind(own: Option<IpAddr>) -> Option<UdpSocket> {
    UdpSocket::bind((own?, 0)).await.ok()
}

#[cfg(test)]
mod tests;
