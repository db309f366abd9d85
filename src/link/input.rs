//! The messages between the edge and an input process, which fetches one source and sends it as a participant would.
//!
//! Owns: the messages. Does not know: processes, sockets, media. Framed as the mixer's ([`super::frame`]).

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::destination::{Guard, SecretForm};
use crate::id::RoomName;
use crate::media::{Codec, Size, SourceKind, SourcePacket};
use crate::room::inputs::InputReport;

/// From the edge to an input process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToInput {
    /// The first message to a process whose standard output is the connection of an RTMP publisher.
    /// [`FromInput::Publishing`] follows, then [`ToInput::Configure`] or [`ToInput::Refuse`].
    Receive {
        /// What the publisher has sent up to its request, and got answers to. If it is empty, nothing was read.
        received: Vec<u8>,
    },
    /// The publisher is refused.
    Refuse {
        /// The reason, for its user.
        why: String,
    },
    /// The settings. The first message unless the source is pushed.
    Configure(InputSettings),
    /// A receiver needs a keyframe. Requests are coalesced.
    Keyframe,
    /// Close the connection to the source and end.
    Stop,
}

/// The settings of an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSettings {
    /// The name of the room, for logs.
    pub room: RoomName,
    /// The address of the source; None for a pushed source.
    pub source: Option<SecretForm>,
    /// Begin again at its end, if it has one.
    pub repeat: bool,
    /// The folder of files; no file outside is read.
    pub media_dir: PathBuf,
    /// The addresses that are allowed.
    pub guard: Guard,
    /// Largest picture that is sent; a larger one is scaled down. The canvas of the room.
    pub picture: Size,
    /// Most frames a second that are sent.
    pub fps: u32,
    /// Encode H.264 with openh264 instead of x264.
    pub openh264: bool,
    /// Threads of the encoder.
    pub threads: u32,
}

/// A text that may be secret: `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// From an input process to the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromInput {
    /// The input has started.
    Ready {
        /// Elements that are not installed, as texts that name the Debian package.
        missing: Vec<String>,
    },
    /// A publisher requests to push.
    Publishing {
        /// The application (RTMP).
        app: String,
        /// The stream key with its query; may be secret.
        key: Hidden,
    },
    /// Packets of this kind and codec follow. Repeated when the codec changes.
    Started {
        /// Camera or microphone.
        kind: SourceKind,
        /// Its codec.
        codec: Codec,
    },
    /// One packet.
    Packet(SourceKind, SourcePacket),
    /// Sent four times a second, also when idle: an input without messages is killed as hung.
    Report(InputReport),
    /// The source has ended; the process ends next.
    Ended {
        /// What was wrong; None at the end of the source, and after [`ToInput::Stop`].
        reason: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::destination::Destination;
    use crate::link::frame::{Decoder, encode_into};
    use crate::room::document::{InputState, SkipReason};
    use crate::time::Timestamp;

    fn settings() -> InputSettings {
        let source = Destination::input("srt://example.com:9000?passphrase=key-of-mine").expect("a URL");
        InputSettings {
            room: "demo".parse().expect("a name"),
            source: Some(source.secret_form()),
            repeat: true,
            media_dir: "media".into(),
            guard: Guard { allow_private: false, allow: vec!["10.0.0.0/8".parse().expect("a network")] },
            picture: Size::new(1280, 720),
            fps: 30,
            openh264: false,
            threads: 2,
        }
    }

    #[test]
    fn every_message_survives_the_link() {
        let to = [
            ToInput::Receive { received: vec![3, 0, 255] },
            ToInput::Refuse { why: "no token".into() },
            ToInput::Configure(settings()),
            ToInput::Keyframe,
            ToInput::Stop,
        ];
        let packet = SourcePacket {
            sequence: 65_535,
            timestamp: 90_000,
            marker: true,
            arrival: Timestamp::from_micros(5),
            captured: None,
            audio_level: Some(30),
            rotation: None,
            colours: None,
            payload: Bytes::from_static(b"payload"),
        };
        let report = InputReport {
            state: InputState::Reconnecting,
            reason: Some("nothing came for 10 s".into()),
            bitrate: 1_500_000,
            reconnects: 2,
            size: Some(Size::new(1920, 1080)),
            pictures_skipped: 3,
            late: 1,
            skipped: [(SkipReason::Empty, 4)].into(),
            timestamp_jumps: 1,
            link_dropped: 0,
            cpu_ms: 1234,
        };
        let from = [
            FromInput::Ready { missing: vec!["apt-get install it".into()] },
            FromInput::Publishing { app: "live".into(), key: Hidden("room?token=key-of-mine".into()) },
            FromInput::Started { kind: SourceKind::Camera, codec: Codec::H264 },
            FromInput::Packet(SourceKind::Microphone, packet),
            FromInput::Report(report),
            FromInput::Ended { reason: None },
        ];
        let mut wire = Vec::new();
        to.iter().for_each(|message| encode_into(message, &mut wire).expect("short"));
        let mut decoder = Decoder::default();
        decoder.extend(&wire);
        for message in to {
            assert_eq!(decoder.next_message().expect("well formed"), Some(message));
        }
        wire.clear();
        from.iter().for_each(|message| encode_into(message, &mut wire).expect("short"));
        decoder.extend(&wire);
        for message in from {
            assert_eq!(decoder.next_message().expect("well formed"), Some(message));
        }
    }

    #[test]
    fn keys_do_not_reach_a_log() {
        let text = format!("{:?}", ToInput::Configure(settings()));
        assert!(!text.contains("key-of-mine") && !text.contains("example.com"), "{text}");
        let text = format!("{:?}", Hidden("key-of-mine".into()));
        assert!(!text.contains("key-of-mine"), "{text}");
    }
}
