//! The mixer process.

pub mod compose;
