//! Those who only receive: many on a thread, with a stack of their own.
//!
//! Owns: [`Viewers`], the threads that serve them and the certificate they all are shown; a viewer's place between fan-out
//! and thread. Does not know: rooms, HTTP. A viewer is the same [`Peer`](super::Peer) to its callers as one that sends.
//!
//! A whole peer connection of `webrtc` costs 17 µs a packet, which is mostly passing it on from layer to layer. Viewers need
//! little of that: the fan-out marks who has something to send ([`shard`]), and the thread rewrites, encrypts and sends it in
//! batches ([`connection`], [`stream`]). What was agreed with each stands in [`negotiation`].

mod connection;
mod negotiation;
mod shard;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use self::connection::Connection;
use self::negotiation::Negotiation;
pub(super) use self::shard::Rung;
use self::shard::{Doorbell, Place, Shard, Viewer};
use super::{Answer, COMMANDS, Counters, Peer, PeerError, PeerEvent, crypto};
use crate::fanout::Subscriber;
use crate::net::udp::Mux;
use crate::peer::tap::Seen;
use crate::sdp::{Facts, Offer};
use crate::time;
use crate::transport::secure::Identity;

/// Serves all viewers of a server. Its threads end with it.
pub(super) struct Viewers {
    identity: Arc<Identity>,
    shards: Vec<Arc<Doorbell>>,
    next: AtomicUsize,
}

impl Viewers {
    /// Starts the threads, one for every two cores; must be called within a tokio runtime.
    pub(super) fn start(mux: &Arc<Mux>) -> io::Result<Self> {
        let crypto = crypto::provider().map_err(io::Error::other)?;
        let identity = Arc::new(Identity::new(crypto).map_err(io::Error::other)?);
        let count = thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1);
        let mut shards = Vec::with_capacity(count);
        for number in 0..count {
            let doorbell = Arc::new(Doorbell::default());
            let shard = Shard::new(Arc::clone(mux), Arc::clone(&doorbell), Handle::current());
            thread::Builder::new().name(format!("viewers-{number}")).spawn(move || shard.run())?;
            shards.push(doorbell);
        }
        Ok(Self { identity, shards, next: AtomicUsize::new(0) })
    }

    /// Answers an offer that only receives, and begins to connect.
    pub(super) fn answer(
        &self,
        mux: &Arc<Mux>,
        offer: &Offer,
        text: &str,
        facts: &Facts,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<(Peer, Answer), PeerError> {
        let mut negotiation = Negotiation::begin(Arc::clone(&self.identity), mux.candidates(), offer, text, facts)?;
        let on_port = mux.connect();
        let doorbell = &self.shards[self.next.fetch_add(1, Ordering::Relaxed) % self.shards.len()];
        let place = Arc::new(Place::new(on_port.key(), Arc::clone(doorbell)));
        let subscriber = Arc::new(Subscriber::with_bell(place.clone()));
        let (counters, seen) = (Arc::new(Counters::default()), Arc::new(Seen::default()));
        let mut connection =
            Connection::new(negotiation.setup(), Arc::clone(&subscriber), Arc::clone(&counters), time::now())?;
        connection.set_formats(&negotiation.taken);
        on_port.deliver_to(doorbell.inbox());
        on_port.set_remote_password(&negotiation.taken.ice.password);
        let local = negotiation.local();
        on_port.set_local_credentials(&local.ufrag, &local.password);
        let answer = negotiation.answer();
        let (commands, inbox) = mpsc::channel(COMMANDS);
        doorbell.arrive(Viewer::new(
            connection,
            negotiation,
            on_port,
            inbox,
            events,
            Arc::clone(&seen),
            place.clone(),
        ))?;
        // It sends nothing that could be limited.
        let limit = watch::Sender::new(None);
        Ok((Peer { commands, limit, rung: Some(Rung::new(place)), subscriber, counters, seen }, answer))
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        self.shards.iter().for_each(|doorbell| doorbell.stop());
    }
}
