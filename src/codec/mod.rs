//! Codecs: decoders, encoders, payload formats.

pub mod sound;
