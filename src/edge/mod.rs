//! The edge process.

pub mod fanout;
pub mod peer;
pub mod udp;
