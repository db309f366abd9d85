//! The edge process.

pub mod fanout;
pub mod udp;
