//! The edge process.

pub mod udp;
