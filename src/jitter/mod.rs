//! Jitter buffers: packets in any order in, frames in order out. Pure.
