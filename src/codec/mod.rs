//! Codecs: decoders, encoders, payload formats.
