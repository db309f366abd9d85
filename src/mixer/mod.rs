//! The mixer process.
