//! Sockets of the serving process: the media port, ICE over TCP, TURN, TLS.
//!
//! Owns: sockets, demultiplexing, limits per address. Does not know: sessions, rooms, HTTP routes, media. Datagrams of
//! a connection leave through [`udp`]; streams that TLS has opened go to their caller.

pub mod connection_limits;
pub mod listener;
pub mod proxy_protocol;
pub mod rate_limit;
pub mod tcp;
pub mod tls;
pub mod turn;
pub mod udp;
