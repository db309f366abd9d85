//! Targets that read text: SDP fragments, URLs, commands of clients, filters, images.
//!
//! Owns: these targets. Does not know: the fuzzer.

use crate::room::moderation::Changer;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::client::description;
use crate::destination::{Destination, Network, Target};
use crate::filter::{Catalog, Declaration, FilterRequest};
use crate::id::{ImageName, RoomName, ViewName};
use crate::layout::{CustomTile, Layout};
use crate::media::{Codec, Size, SoundTaken, SourceKind};
use crate::overlay::{Image, OverlayRequest};
use crate::room::chat::{ChatRequest, Sender};
use crate::room::direct::DirectMessage;
use crate::room::document::{ParticipantPatch, Role, RoomPatch, TierChoice};
use crate::room::emoji::Emoji;
use crate::room::view_request::{ViewPatch, ViewRequest};
use crate::room::{Admission, Input, Room, RoomSettings};
use crate::sdp::{Fragment, candidate_address, keep_sha256, replace_candidates};
use crate::tier::Ladder;
use crate::time::Timestamp;

/// The answer of a server to our offer, and its fragment after a restart of ICE.
pub(super) fn sdp_answer(text: &str) {
    // Errors end the session with a text.
    let _ = description::Answer::parse(text);
    let _ = description::restarted(text);
}

pub(super) fn sdpfrag(text: &str) {
    if let Ok(fragment) = Fragment::parse(text) {
        for line in &fragment.candidates {
            candidate_address(&line.candidate);
        }
    }
    let ours = vec!["candidate:1 1 udp 1 192.0.2.1 8189 typ host".to_owned()];
    replace_candidates(text, &ours);
    let kept = keep_sha256(text);
    assert_eq!(keep_sha256(&kept), kept);
}

/// URLs and names: what is accepted survives its way through our messages, URLs and file names.
pub(super) fn url(text: &str) {
    for destination in [Destination::output(text), Destination::input(text)].into_iter().flatten() {
        assert!(destination.secret_form().open().is_ok_and(|opened| opened == destination), "{text:?}");
        destination.redacted();
        destination.endpoint();
        if let Target::Http(web) = destination.target() {
            // An error is the answer to a redirect that is refused.
            let _ = web.join(text);
        }
    }
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse::<Network>(), Ok(network));
    }
    for name in [text.parse::<RoomName>(), RoomName::from_url(text)].into_iter().flatten() {
        assert_eq!(RoomName::from_url(&name.in_url().to_string()), Ok(name.clone()));
        assert_eq!(name.as_str().parse(), Ok(name.clone()));
        assert!(!name.in_file_names().contains(['/', '\0']));
    }
    if let Ok(name) = text.parse::<crate::recordings::FileName>() {
        assert!(!name.as_str().contains(['/', '\0']) && !name.as_str().starts_with('.'));
    }
    if let Ok(name) = text.parse::<ImageName>() {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
}

/// Commands of clients, one JSON object per line, carried out in a room of two.
pub(super) fn command(text: &str) {
    let mut now = Timestamp::from_micros(1_000_000_000);
    let settings = RoomSettings {
        filters: Arc::new(Catalog::shipped()),
        name: "test".parse().expect("a name"),
        layout: Layout::default(),
        canvas: Size::new(1280, 720),
        fps: 30,
        ladder: Ladder::default(),
        max_participants: 4,
        max_viewers: 4,
        max_outputs: 3,
        max_inputs: 2,
        direct_for_two: true,
        linger: Duration::from_secs(5),
        permanent: true,
        chat_history: 8,
    };
    let mut room = Room::new(settings, now);
    let mut ids = Vec::new();
    for name in ["Ann", "Bob"] {
        let admission = Admission {
            name: name.to_owned(),
            role: Role::Participant,
            sends: vec![SourceKind::Microphone, SourceKind::Camera],
            receives_audio: Some(SoundTaken::Any),
            receives_video: Some(Codec::Vp8),
            tier: TierChoice::Auto,
            view: ViewPatch::default(),
            bot: false,
            identity: None,
        };
        let Ok(admitted) = room.admit(now, admission) else { panic!("the room is empty") };
        room.handle(now, Input::Connected(admitted.participant));
        for (kind, source) in admitted.sources {
            let codec = if kind == SourceKind::Camera { Codec::Vp8 } else { Codec::Opus };
            room.handle(now, Input::SourceStarted(source, codec));
        }
        ids.push(admitted.participant);
    }
    let view: ViewName = "wide".parse().expect("a name");
    for (line, id) in text.lines().take(64).zip(ids.iter().cycle()) {
        if let Ok(patch) = serde_json::from_str::<ParticipantPatch>(line)
            && room.check_view(&patch.view_patch()).is_ok()
            && room.check_avatar(&patch).is_ok()
            && patch.filters.as_deref().is_none_or(|filters| room.check_filters(filters).is_ok())
        {
            room.handle(now, Input::Update(Changer::Itself, *id, patch));
        }
        if let Ok(patch) = serde_json::from_str::<RoomPatch>(line) {
            room.handle(now, Input::Patch(patch));
        }
        if let Ok(request) = serde_json::from_str::<ViewRequest>(line) {
            // An error is the answer to a view that is refused.
            let _ = room.put_view(now, &view, request);
        }
        if let Ok(request) = serde_json::from_str::<OverlayRequest>(line)
            && let Ok(overlay) = room.add_overlay(now, request)
        {
            if let Ok(patch) = serde_json::from_str(line) {
                let _ = room.change_overlay(now, overlay.id, patch);
            }
            let _ = room.remove_overlay(now, overlay.id);
        }
        if let Ok(signal) = serde_json::from_str(line) {
            room.handle(now, Input::Direct(*id, DirectMessage::Signal(signal)));
        }
        if let Ok(emoji) = Emoji::new(line) {
            room.handle(now, Input::React(*id, emoji));
        }
        let request = serde_json::from_str(line).unwrap_or_else(|_| ChatRequest { text: line.to_owned(), to: None });
        // An error is the answer to a message that is refused.
        let _ = room.chat(now, Sender::Participant(*id), request);
        now = now + Duration::from_millis(300);
        if room.poll_timeout().is_some_and(|due| due <= now) {
            room.handle(now, Input::Timeout);
        }
        while room.poll_effect().is_some() {}
        let document = serde_json::to_string(&room.document()).expect("a document is plain data");
        assert!(document.len() < 1 << 20, "a document of {} bytes", document.len());
        // Tiles of a request, apart from a room.
        let _ = serde_json::from_str::<Vec<CustomTile>>(line);
    }
}

/// The file of a filter, and requests for it: one JSON object per line that begins with `{`.
pub(super) fn filter(text: &str) {
    let (requests, file): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('{'));
    let catalog = Catalog::new([("fuzz".to_owned(), file.join("\n"))]);
    assert_eq!(catalog.is_ok(), Declaration::parse("fuzz", &file.join("\n")).is_ok());
    let catalog = catalog.unwrap_or_else(|_| Catalog::shipped());
    for request in requests.into_iter().filter_map(|line| serde_json::from_str::<FilterRequest>(line).ok()) {
        if let Ok(filter) = catalog.check(&request) {
            filter.spec(1);
        }
    }
    assert!(catalog.defaults().count() > 0);
}

pub(super) fn image(bytes: &[u8]) {
    if let Ok(image) = Image::check(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Image::check(image.bytes.clone()), Ok(image));
    }
}
