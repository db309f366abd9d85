//! HTTP, WebSocket and RTMP requests of clients, and what they are answered.
//!
//! Owns: routes, authorization, problem documents, the event sockets, the web page, the RTMP listener. Does not know: the
//! state of rooms ([`crate::rooms`]), media. Requests come in by [`api`]; answers and events leave by it.

pub mod api;
pub mod auth;
pub mod problem;
pub mod rtmp_ingest;
pub mod web;
