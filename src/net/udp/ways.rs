//! Ways: how datagrams come and go by something else than the port's UDP sockets, a TCP connection or a relay of ours.
//!
//! Owns: [`Way`], one of them as its carrier holds it, and [`Routes`], by which of them a connection's datagrams leave. Does
//! not know: how a way carries a datagram. To ICE the far end of a way is a remote address like any other: an address that a
//! connection has validated by a way is answered by that way, and the same address by UDP is another one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Mux;

/// Names a way.
pub(super) type WayId = u64;

/// How a datagram came, or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Via {
    /// By the port's sockets.
    Udp,
    /// By this way.
    Way(WayId),
}

/// Sends a datagram to a way's far end, now or never; false when it was dropped.
pub(super) type Outbound = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// How an address is reached that is not simply sent to.
#[derive(Clone)]
pub(super) struct Exit {
    /// A way, or UDP from another address than the kernel would take.
    pub(super) via: Via,
    pub(super) outbound: Outbound,
}

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exit({:?})", self.via)
    }
}

/// The addresses that one connection does not simply send to. Whoever has none pays for a flag.
#[derive(Debug, Default)]
pub(super) struct Routes {
    any: AtomicBool,
    exits: Mutex<HashMap<SocketAddr, Exit>>,
}

impl Routes {
    /// The address is reached so from now on.
    pub(super) fn set(&self, to: SocketAddr, exit: Exit) {
        self.exits.lock().insert(to, exit);
        self.any.store(true, Ordering::Release);
    }

    /// The address is simply sent to from now on, if it was reached by this.
    pub(super) fn clear(&self, to: SocketAddr, via: Via) {
        self.clear_if(to, |known| known == via);
    }

    /// The address is reached by UDP from now on.
    pub(super) fn leave_way(&self, to: SocketAddr) {
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

    /// How the address is reached.
    pub(super) fn via(&self, to: SocketAddr) -> Via {
        self.exit(to).map_or(Via::Udp, |exit| exit.via)
    }

    /// Sends a datagram if its address is not simply sent to, and says by what and whether that took it.
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

/// A way, held by who carries its datagrams. Dropping it closes it: what was validated by it is forgotten.
#[derive(Debug)]
pub(crate) struct Way {
    pub(super) mux: Weak<Mux>,
    pub(super) id: WayId,
    pub(super) remote: SocketAddr,
    pub(super) left: Arc<Notify>,
}

impl Way {
    /// Takes a datagram that came from the far end; false when it reached no connection.
    pub(crate) fn received(&self, datagram: &[u8]) -> bool {
        self.mux.upgrade().is_some_and(|mux| mux.receive(Via::Way(self.id), self.remote, None, datagram))
    }

    /// Waits until a connection is gone that it led to.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }

    /// Whether it leads to a connection now.
    pub(crate) fn leads(&self) -> bool {
        self.mux.upgrade().is_some_and(|mux| mux.table.lock().leads(self.id, self.remote))
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(mux) = self.mux.upgrade() {
            mux.close_way(self.id, self.remote);
        }
    }
}
