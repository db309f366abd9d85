//! What edge and input process say to each other: the edge orders one source, the process sends what a participant would.
//!
//! Owns: the messages. Does not know: processes, sockets, media. Framed as those of the mixer are ([`super::frame`]).

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
    /// The first message to a process whose standard output is the connection of an encoder that wants to push: hear what
    /// it wants. [`FromInput::Publishing`] follows, and [`ToInput::Configure`] or [`ToInput::Refuse`] after that.
    Receive,
    /// The encoder may not push.
    Refuse {
        /// Why, for its user.
        why: String,
    },
    /// Which source, and what becomes of it. The first message, but for one that is pushed.
    Configure(InputSettings),
    /// Somebody cannot decode the picture without a keyframe. Any number may be sent.
    Keyframe,
    /// The source is wanted no more: say goodbye to it and end.
    Stop,
}

/// What an input process must know before anything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSettings {
    /// For logs.
    pub room: RoomName,
    /// Where the source is; None for what the encoder pushes.
    pub source: Option<SecretForm>,
    /// Begin again at its end, where it has one.
    pub repeat: bool,
    /// Where files are; nothing outside of it is read.
    pub media_dir: PathBuf,
    /// Which addresses it may be fetched from.
    pub guard: Guard,
    /// Largest picture sent on; a larger one is scaled down. The room's canvas.
    pub picture: Size,
    /// Most frames a second sent on.
    pub fps: u32,
    /// Encode H.264 with openh264 instead of x264.
    pub openh264: bool,
    /// Threads of the encoder.
    pub threads: u32,
}

/// A text that may be secret: `Debug` hides it.
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
    /// Codecs are loaded; says which of them are missing on this machine, in words.
    Ready {
        /// What this process cannot do, each with the package that mends it.
        missing: Vec<String>,
    },
    /// An encoder wants to push.
    Publishing {
        /// To which application.
        app: String,
        /// Under which stream key, with its query; it may be secret.
        key: Hidden,
    },
    /// Packets of this kind follow, in this codec. Said again when the codec changes.
    Started {
        /// Camera or microphone.
        kind: SourceKind,
        /// Its codec.
        codec: Codec,
    },
    /// One packet, as a participant would send it.
    Packet(SourceKind, SourcePacket),
    /// Sent four times a second, also when nothing comes: the edge takes an input without any message for hung.
    Report(InputReport),
    /// The source is over for good; the process ends.
    Ended {
        /// What was wrong; None when it came to its end or was told to stop.
        reason: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::destination::Destination;
    use crate::link::frame::{Decoder, encode_into};
    use crate::room::document::InputState;
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
            ToInput::Receive,
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
