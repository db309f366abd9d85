//! The HTTP API.

mod admission;
