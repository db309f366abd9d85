//! The quality ladder. Pure.
