//! The edge process: sockets, peers, rooms' tasks, HTTP.

pub mod api;
pub mod auth;
pub mod events;
pub mod problem;
pub mod rooms;
pub mod web;
