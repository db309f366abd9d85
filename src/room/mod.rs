//! The room: sans-IO state.
