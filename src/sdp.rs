//! What we ask of an offer. Pure.
