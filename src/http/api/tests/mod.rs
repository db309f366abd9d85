//! Tests of the API through its router, with real rooms and a media port on loopback, but without mixer and browsers.
//! Connected participants are clients of the crate `webrtc`.

mod aborted;
mod chat;
mod contract;
mod corners;
mod events;
mod flood;
mod https;
mod inputs;
mod joining;
pub(in crate::http) mod limits;
mod moderation;
mod names;
mod origin;
mod overlays;
mod permissions;
mod player;
mod recordings;
mod views;
mod whip;

use std::net::{Ipv4Addr, SocketAddr};

use axum::body::to_bytes;
use rtc::rtp_transceiver::RTCRtpTransceiverDirection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::*;
use crate::config::Secret;
use crate::http::auth::{Claims, sign};
use crate::link::sandbox::Access;
use crate::net::tcp::{self, TcpCounters};
use crate::peer::PeerConfig;
use crate::peer::tests::client::{Client, PATIENCE};
use crate::process::ProcessCommand;
use crate::recordings::{Finish, Library};
use crate::room::document::Role;
use crate::rooms::HlsBroadcasts;
use crate::rooms::{InputServerSettings, RecordingSettings, RoomCounters, ServerSettings};
use crate::time;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const SDP: &str = "application/sdp";
const JSON: &str = "application/json";

/// An app and its router.
pub(in crate::http) struct Api {
    pub(in crate::http) app: App,
    router: Router,
    data: TempDir,
    media_port: u16,
}

/// The response to a request.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts a complete problem document with this status; returns its detail.
    #[track_caller]
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for field in ["type", "title", "code", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem["detail"].as_str().expect("checked").to_owned()
    }
}

impl Api {
    fn new() -> Self {
        Self::with(|_| {})
    }

    pub(in crate::http) fn keyed() -> Self {
        Self::with(|config| config.auth.key = Some(Secret::from(KEY.to_owned())))
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let mux = tcp::bind((Ipv4Addr::LOCALHOST, 0).into(), Vec::new(), &TcpCounters::default());
        let mux = mux.expect("loopback has free ports");
        let port = mux.local_addr().port();
        // It sends no reports; these tests end before it is considered hung.
        let mixer = ProcessCommand {
            program: "sleep".into(),
            arguments: vec!["60".into(), marker(port)],
            ceiling: None,
            access: Access::default(),
        };
        let data = tempfile::tempdir().expect("the temporary folder can be written");
        let library = Library::open(data.path(), Finish::by(|_, _, _| Err("nothing is repaired here".into())), None);
        let settings = ServerSettings {
            output: mixer.clone(),
            mixer: mixer.clone(),
            recordings: RecordingSettings { folder: library.folder().to_owned(), floor_bytes: 0 },
            library: library.clone(),
            broadcasts: config.outputs.guard(),
            max_outputs: 2,
            hls: HlsBroadcasts::default(),
            inputs: InputServerSettings {
                command: mixer.clone(),
                guard: config.inputs.guard(),
                media_dir: "media".into(),
            },
            max_inputs: 2,
            endings: TaskTracker::new(),
            canvas: config.video.canvas,
            fps: config.video.fps,
            ladder: config.ladder(),
            encodable: config.video.codecs.clone(),
            openh264: false,
            max_source: config.video.max_source,
            transition_ms: 0,
            filters: Arc::new(crate::filter::Catalog::shipped()),
            filter_budget: config.filters.frame_budget(),
            mixer_threads: 1,
            auto_create: config.rooms.auto_create,
            max_participants: config.rooms.max_participants as usize,
            max_viewers: config.rooms.max_viewers as usize,
            direct_for_two: config.rooms.direct_for_two,
            max_rooms: config.rooms.max_rooms as usize,
            linger: config.rooms.linger(),
            chat_history: config.rooms.chat_history as usize,
            counters: RoomCounters::default(),
        };
        let rooms = Rooms::new(settings, PeerConfig::new(mux).expect("starts"));
        let app = App::new(&config, rooms, library, Arc::new(Metrics::default()), IceServers::stun(None, port));
        Self { router: router(&app), app, data, media_port: port }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<axum::body::Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).expect("a valid request");
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("the body is complete");
        let body = String::from_utf8(body.to_vec()).expect("all responses are text");
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    async fn post_offer(&self, path: &str, offer: &str) -> Reply {
        self.send("POST", path, &[("content-type", SDP)], offer.to_owned()).await
    }

    async fn send_json(&self, method: &str, path: &str, body: &str) -> Reply {
        self.send(method, path, &[("content-type", JSON)], body.to_owned()).await
    }

    /// Processes that were started as mixers.
    pub(in crate::http) fn mixers(&self) -> usize {
        let marker = marker(self.media_port).into_bytes();
        let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        lines.filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == marker)).count()
    }

    /// Joins, and returns the session's path with the answer.
    async fn join(&self, room: &str) -> (String, Reply) {
        let reply = self.post_offer(&format!("/v1/rooms/{room}/participants"), &offer("sendrecv")).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        (reply.header("location").to_owned(), reply)
    }

    /// Joins with a real connection; returns the client and the path of the session once the participant is connected.
    async fn call(&self, room: &str) -> (Client, String) {
        let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
        let offer = client.offer(None).await;
        let joined = self.post_offer(&format!("/v1/rooms/{room}/participants"), &offer).await;
        assert_eq!(joined.status, 201, "{joined:?}");
        client.answered(&joined.body).await;
        client.connected().await;
        let session = joined.header("location").to_owned();
        let shown = async { while self.get(&session).await.json()["id"].is_null() {} };
        tokio::time::timeout(PATIENCE, shown).await.expect("it is connected in time");
        (client, session)
    }

    /// Starts a server on a free port of loopback.
    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(serve(listener, self.app.clone(), None, None));
        address
    }
}

/// An argument of `sleep` that tells the processes of one API from those of the others.
fn marker(port: u16) -> String {
    format!("0.{port:05}")
}

fn token(room: Option<&str>, role: Role) -> String {
    let room = room.map(|room| room.parse().expect("a name"));
    let exp = time::unix_seconds() as f64 + 60.0;
    sign(&Claims { room, role, name: Some("Ann".into()), exp, nbf: None }, KEY)
}

fn offer(direction: &str) -> String {
    let fingerprint = (0..32).map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let mut sdp =
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n".to_owned();
    for (kind, mid, payload, codec) in [("audio", 0, 111, "opus/48000/2"), ("video", 1, 96, "VP8/90000")] {
        sdp += &format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {payload}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:Rst4\r\n\
             a=ice-pwd:aaaabbbbccccddddeeeeffff\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {fingerprint}\r\n\
             a=setup:actpass\r\na=mid:{mid}\r\na={direction}\r\na=msid:stream {kind}\r\na=rtcp-mux\r\n\
             a=rtpmap:{payload} {codec}\r\n"
        );
        if direction.starts_with("send") {
            sdp += &format!("a=ssrc:{} cname:tester\r\n", 1000 + mid);
        }
    }
    sdp
}
