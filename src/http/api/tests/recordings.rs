//! Recordings on disk: permissions, downloads, deletion.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::*;

const ANN: &str = "ann-20261125-101500-k1.mp4";
const BEN: &str = "ben-20261125-111500-k2.webm";

fn sidecar(room: &str, state: &str, started: &str) -> String {
    json!({
        "room": room, "recording": "o1", "format": "mp4", "state": state, "started": started, "duration": 1.5,
        "chat": ["hi"],
    })
    .to_string()
}

impl Api {
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.data.path().join("recordings").join(name), bytes).expect("the temporary folder can be written");
    }

    /// Adds recordings of two rooms, and a file without a JSON.
    fn recorded(self) -> Self {
        self.write(ANN, "0123456789");
        self.write("ann-20261125-101500-k1.json", sidecar("ann", "finished", "2026-11-25T10:15:00Z"));
        self.write(BEN, "abc");
        self.write("ben-20261125-111500-k2.json", sidecar("ben", "recording", "2026-11-25T11:15:00Z"));
        self.write("stray.mkv", "x");
        self
    }

    async fn as_role(&self, method: &str, path: &str, room: Option<&str>, role: Role) -> Reply {
        let bearer = format!("Bearer {}", token(room, role));
        self.send(method, path, &[("authorization", &bearer)], "").await
    }
}

fn names(reply: &Reply) -> Vec<String> {
    let list = reply.json();
    let files = list.as_array().expect("a list").iter().map(|file| file["file"].as_str().expect("a name").to_owned());
    files.collect()
}

#[tokio::test]
async fn recordings_are_listed_newest_first() {
    let api = Api::new().recorded();
    let all = api.get("/v1/recordings").await;
    assert_eq!(names(&all)[1..], [BEN, ANN], "the file without a JSON was written just now: {all:?}");
    let list = all.json();
    assert_eq!((&list[0]["state"], &list[0]["room"]), (&json!("broken"), &Value::Null), "{list}");
    assert!(list[0]["reason"].as_str().is_some_and(|why| why.contains("stray.json")), "{list}");
    let ann = json!({
        "file": ANN, "room": "ann", "recording": "o1", "state": "finished", "started": "2026-11-25T10:15:00Z",
        "duration": 1.5, "bytes": 10, "url": format!("/v1/recordings/{ANN}"),
        "chat": "/v1/recordings/ann-20261125-101500-k1.chat.txt",
    });
    assert_eq!((&list[1]["state"], &list[2]), (&json!("recording"), &ann));
    assert_eq!(names(&api.get("/v1/recordings?room=ann").await), [ANN]);
    assert_eq!(api.get("/v1/recordings?room=nobody").await.json(), json!([]));
    api.get("/v1/recordings?room=..").await.problem(400);
}

#[tokio::test]
async fn a_moderator_accesses_only_the_recordings_of_its_room() {
    let api = Api::keyed().recorded();
    let (ann, ben) = (format!("/v1/recordings/{ANN}"), format!("/v1/recordings/{BEN}"));
    assert_eq!(names(&api.as_role("GET", "/v1/recordings", Some("ann"), Role::Moderator).await), [ANN]);
    api.as_role("GET", "/v1/recordings?room=ben", Some("ann"), Role::Moderator).await.problem(403);
    assert_eq!(api.as_role("GET", &ann, Some("ann"), Role::Moderator).await.status, 200);
    api.as_role("GET", &ben, Some("ann"), Role::Moderator).await.problem(403);
    api.as_role("GET", &ann, Some("ann"), Role::Participant).await.problem(403);
    api.as_role("DELETE", &ann, Some("ben"), Role::Moderator).await.problem(403);
    let json = "/v1/recordings/ann-20261125-101500-k1.json";
    api.as_role("GET", json, Some("ben"), Role::Moderator).await.problem(403);
    assert_eq!(api.as_role("GET", json, Some("ann"), Role::Moderator).await.json()["chat"], json!(["hi"]));
    // A file whose room is unknown requires an operator.
    api.as_role("GET", "/v1/recordings/stray.mkv", Some("ann"), Role::Moderator).await.problem(403);
    assert_eq!(api.as_role("GET", "/v1/recordings/stray.mkv", None, Role::Operator).await.status, 200);
    assert_eq!(names(&api.as_role("GET", "/v1/recordings", None, Role::Operator).await).len(), 3);
    api.get(&ann).await.problem(401);
    let token = token(Some("ann"), Role::Moderator);
    assert_eq!(api.get(&format!("{ann}?token={token}")).await.status, 200, "a video element cannot send headers");
}

#[tokio::test]
async fn the_session_of_a_moderator_gives_access_to_recordings() {
    let api = Api::keyed().recorded();
    let path = format!("/v1/recordings/{ANN}");
    for (room, role, status) in
        [("ann", Role::Moderator, 200), ("ben", Role::Moderator, 403), ("ann", Role::Participant, 403)]
    {
        let bearer = format!("Bearer {}", token(Some(room), role));
        let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
        let offer = client.offer(None).await;
        let headers = [("content-type", SDP), ("authorization", bearer.as_str())];
        let joined = api.send("POST", &format!("/v1/rooms/{room}/participants"), &headers, offer).await;
        assert_eq!(joined.status, 201, "{joined:?}");
        let session = joined.header("location").to_owned();
        client.answered(&joined.body).await;
        client.connected().await;
        let shown = async { while api.get(&session).await.json()["id"].is_null() {} };
        tokio::time::timeout(PATIENCE, shown).await.expect("it is connected in time");
        let secret = session.rsplit('/').next().expect("a path");
        assert_eq!(api.get(&format!("{path}?session={secret}")).await.status, status, "{role:?} of {room}");
    }
    api.get(&format!("{path}?session=nobody")).await.problem(401);
}

#[tokio::test]
async fn a_recording_is_downloaded_whole_or_in_part() {
    let api = Api::new().recorded();
    let path = format!("/v1/recordings/{ANN}");
    let whole = api.get(&path).await;
    assert_eq!((whole.status, whole.body.as_str()), (200, "0123456789"));
    for (name, value) in [
        ("content-type", "video/mp4"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("content-disposition", "inline; filename=\"ann-20261125-101500-k1.mp4\""),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "private, no-cache"),
    ] {
        assert_eq!(whole.header(name), value, "{whole:?}");
    }
    assert!(whole.header("last-modified").ends_with("GMT"), "{whole:?}");
    let kept = api.get(&format!("{path}?download=1")).await;
    assert_eq!(kept.header("content-disposition"), format!("attachment; filename=\"{ANN}\""));
    let head = api.send("HEAD", &path, &[("range", "bytes=2-4")], "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (206, "3", ""), "{head:?}");

    let ask = async |headers: &[(&str, &str)]| api.send("GET", &path, headers, "").await;
    let part = ask(&[("range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.body.as_str(), part.header("content-range")), (206, "234", "bytes 2-4/10"));
    assert_eq!((part.header("content-length"), part.header("etag")), ("3", whole.header("etag")));
    assert_eq!(ask(&[("range", "bytes=-2")]).await.body, "89");
    let tag = whole.header("etag");
    assert_eq!(ask(&[("range", "bytes=2-4"), ("if-range", tag)]).await.body, "234");
    assert_eq!(ask(&[("range", "bytes=2-4"), ("if-range", "\"old\"")]).await.body, "0123456789");
    let known = ask(&[("if-none-match", tag)]).await;
    assert_eq!((known.status, known.body.as_str(), known.header("etag")), (304, "", tag));
    let beyond = ask(&[("range", "bytes=10-")]).await;
    beyond.problem(416);
    assert_eq!(beyond.header("content-range"), "bytes */10");
}

#[tokio::test]
async fn the_written_part_of_a_running_recording_is_downloaded() {
    let api = Api::new().recorded();
    let path = format!("/v1/recordings/{BEN}");
    let first = api.get(&path).await;
    assert_eq!((first.body.as_str(), first.header("etag"), first.header("cache-control")), ("abc", "", "no-store"));
    api.write(BEN, "abcdef");
    let rest = api.send("GET", &path, &[("range", "bytes=3-")], "").await;
    assert_eq!((rest.status, rest.body.as_str()), (206, "def"));
    assert!(api.send("DELETE", &path, &[], "").await.problem(409).contains("stop"));
}

#[tokio::test]
async fn file_names_cannot_leave_the_recordings_folder() {
    let api = Api::new().recorded();
    fs::write(api.data.path().join("secret.mp4"), "secret").expect("the temporary folder can be written");
    let link = api.data.path().join("recordings/link.mp4");
    symlink(api.data.path().join("secret.mp4"), link).expect("the temporary folder can be written");
    for name in [
        "nothing.mp4",
        "link.mp4",
        "..%2fsecret.mp4",
        "%2e%2e%2fsecret.mp4",
        "..",
        ".lock",
        "a%00.mp4",
        "a%5c.mp4",
        "x.txt",
        "%C3%A4.mp4",
    ] {
        for method in ["GET", "DELETE"] {
            let reply = api.send(method, &format!("/v1/recordings/{name}"), &[], "").await;
            assert!(reply.problem(404).contains("GET /v1/recordings"), "{name}: {reply:?}");
        }
    }
    api.get("/v1/recordings/../secret.mp4").await.problem(404);
    assert!(api.data.path().join("secret.mp4").exists() && api.data.path().join("recordings/link.mp4").is_symlink());
}

#[tokio::test]
async fn a_recording_is_deleted_with_its_json() {
    let api = Api::new().recorded();
    api.send("DELETE", "/v1/recordings/ann-20261125-101500-k1.json", &[], "").await.problem(404);
    assert_eq!(api.send("DELETE", &format!("/v1/recordings/{ANN}"), &[], "").await.status, 204);
    api.send("DELETE", &format!("/v1/recordings/{ANN}"), &[], "").await.problem(404);
    assert!(!api.data.path().join("recordings/ann-20261125-101500-k1.json").exists());
    assert_eq!(api.send("DELETE", "/v1/recordings/stray.mkv", &[], "").await.status, 204);
    assert_eq!(names(&api.get("/v1/recordings").await), [BEN]);
}

#[tokio::test]
async fn the_chat_of_a_recording_is_downloaded_as_text() {
    let api = Api::keyed().recorded();
    let path = "/v1/recordings/ann-20261125-101500-k1.chat.txt";
    api.as_role("GET", path, Some("ann"), Role::Moderator).await.problem(404);
    api.write("ann-20261125-101500-k1.chat.txt", "[00:00:01] Ann: hello\n");
    let reply = api.as_role("GET", path, Some("ann"), Role::Moderator).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/plain; charset=utf-8"));
    assert_eq!((reply.body.as_str(), reply.header("x-content-type-options")), ("[00:00:01] Ann: hello\n", "nosniff"));
    api.as_role("GET", path, Some("ben"), Role::Moderator).await.problem(403);
    api.as_role("DELETE", path, Some("ann"), Role::Moderator).await.problem(404);
    assert_eq!(api.as_role("DELETE", &format!("/v1/recordings/{ANN}"), None, Role::Operator).await.status, 204);
    api.as_role("GET", path, None, Role::Operator).await.problem(404);
}

#[tokio::test]
async fn captions_of_a_recording_are_its_transcript() {
    let api = Api::keyed().recorded();
    let sidecar = json!({
        "file": ANN, "room": "ann", "recording": "o1", "part": 0, "format": "mp4", "state": "finished",
        "started": "2026-11-25T10:15:00Z", "offset": 0.5, "duration": 60.0, "bytes": 10, "people": [], "layouts": [],
        "speakers": [], "chat": [],
        "captions": [{"at": 4.25, "participant": "p1", "name": "Ann", "text": "1 < 2"}],
    });
    api.write("ann-20261125-101500-k1.json", sidecar.to_string());
    let path = "/v1/recordings/ann-20261125-101500-k1.vtt";
    let list = api.as_role("GET", "/v1/recordings", Some("ann"), Role::Moderator).await.json();
    assert_eq!(list[0]["transcript"], path);
    let reply = api.as_role("GET", path, Some("ann"), Role::Moderator).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/vtt; charset=utf-8"));
    assert_eq!(reply.body, "WEBVTT\n\n1\n00:00:04.250 --> 00:00:10.250\n<v Ann>Ann: 1 &lt; 2</v>\n\n");
    api.as_role("GET", path, Some("ben"), Role::Moderator).await.problem(403);
    api.as_role("GET", "/v1/recordings/ben-20261125-111500-k2.vtt", Some("ben"), Role::Moderator).await.problem(404);
    api.as_role("DELETE", path, Some("ann"), Role::Moderator).await.problem(404);
    assert_eq!(api.as_role("DELETE", &format!("/v1/recordings/{ANN}"), None, Role::Operator).await.status, 204);
    api.as_role("GET", path, None, Role::Operator).await.problem(404);
}
