//! The HTTP, WebSocket and RTMP interfaces of the server.
//!
//! Owns: routes, authorization, problem documents, the event WebSockets, the web page, the RTMP listener. Does not
//! know: the state of rooms ([`crate::rooms`]) and media. Requests enter, and answers and events leave through
//! [`api`].

pub mod api;
pub mod auth;
pub mod problem;
pub mod rtmp_ingest;
mod signatures;
#[cfg(test)]
mod tests;
pub mod web;
