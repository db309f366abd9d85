//! Tunnels: paths of datagrams other than the port's UDP sockets, which are TCP connections and our TURN relays.
//!
//! Owns: [`Tunnel`], the handle of the carrier, and [`Routes`], which path a connection's datagrams leave by. Does not
//! know: how a tunnel carries a datagram. To ICE, the far end of a tunnel is a remote address like any other. An
//! address that was validated through a tunnel is answered through it; the same address by UDP is another one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Mux;

/// Identifies a tunnel.
pub(super) type TunnelId = u64;

/// The path of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Via {
    /// The port's UDP sockets.
    Udp,
    /// This tunnel.
    Tunnel(TunnelId),
}

/// Sends a datagram to a tunnel's far end without waiting; false when it was dropped.
pub(super) type Outbound = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// The path to an address that plain UDP does not lead to.
#[derive(Clone)]
pub(super) struct Exit {
    /// A tunnel, or UDP from a source address other than the kernel's choice.
    pub(super) via: Via,
    pub(super) outbound: Outbound,
}

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exit({:?})", self.via)
    }
}

/// The addresses of one connection that plain UDP does not lead to. A connection without any costs one atomic load.
#[derive(Debug, Default)]
pub(super) struct Routes {
    any: AtomicBool,
    exits: Mutex<HashMap<SocketAddr, Exit>>,
}

impl Routes {
    /// Sets the path to an address.
    pub(super) fn set(&self, to: SocketAddr, exit: Exit) {
        self.exits.lock().insert(to, exit);
        self.any.store(true, Ordering::Release);
    }

    /// Returns an address to plain UDP if its path was `via`.
    pub(super) fn clear(&self, to: SocketAddr, via: Via) {
        self.clear_if(to, |known| known == via);
    }

    /// Returns an address to UDP if its path was a tunnel.
    pub(super) fn leave_tunnel(&self, to: SocketAddr) {
        self.clear_if(to, |known| known != Via::Udp);
    }

    fn clear_if(&self, to: SocketAddr, wanted: impl FnOnce(Via) -> bool) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut exits = self.exits.lock();
        if exits.get(&to).is_some_and(|exit| wanted(exit.via)) {
            exits.remove(&to);
        }
        self.any.store(!exits.is_empty(), Ordering::Release);
    }

    /// The path to an address.
    pub(super) fn via(&self, to: SocketAddr) -> Via {
        self.exit(to).map_or(Via::Udp, |exit| exit.via)
    }

    /// Sends a datagram if plain UDP does not lead to its address; returns the path, and whether that accepted it.
    pub(super) fn send(&self, to: SocketAddr, datagram: &[u8]) -> Option<(Via, bool)> {
        self.exit(to).map(|exit| (exit.via, (exit.outbound)(datagram)))
    }

    fn exit(&self, to: SocketAddr) -> Option<Exit> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.exits.lock().get(&to).cloned()
    }
}

/// A tunnel, held by its carrier. Dropping it closes it and removes the addresses that were validated through it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(super) mux: Weak<Mux>,
    pub(super) id: TunnelId,
    pub(super) remote: SocketAddr,
    pub(super) left: Arc<Notify>,
}

impl Tunnel {
    /// Handles a datagram from the far end; false when it reached no connection.
    pub(crate) fn received(&self, datagram: &[u8]) -> bool {
        self.mux.upgrade().is_some_and(|mux| mux.receive_from_tunnel(Via::Tunnel(self.id), self.remote, datagram))
    }

    /// Waits until a connection is removed that received through the tunnel.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }

    /// Whether a connection receives through the tunnel.
    pub(crate) fn leads(&self) -> bool {
        self.mux.upgrade().is_some_and(|mux| mux.table.lock().leads(self.id, self.remote))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(mux) = self.mux.upgrade() {
            mux.close_tunnel(self.id, self.remote);
        }
    }
}
