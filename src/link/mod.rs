//! The link: messages between edge and mixer, and their framing.
