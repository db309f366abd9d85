//! HLS for everyone: the page `/live/{room}`, and players that continue after a restart of the server.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http::request;
use crate::scenario::{number, play_with};
use crate::server::{Server, Settings};
use crate::with_retries;

fn post(server: &Server, path: &str, body: &Value) -> Value {
    let reply =
        request("POST", &format!("{}{path}", server.url()), &[("content-type", "application/json")], &body.to_string());
    assert_eq!(reply.status, 201, "{path}: {reply:?}");
    reply.json()
}

#[test]
fn players_of_a_public_broadcast_continue_after_a_restart_of_the_server() {
    with_retries(players_continue);
}

fn players_continue() {
    let mut server = Server::start();
    let url = server.url();
    let film = tempfile::tempdir().expect("the temporary folder can be written");
    let arguments = "-nostdin -v error -f lavfi -i testsrc2=s=640x360:r=30 -f lavfi -i sine=440:r=48000 -t 6 -g 30 \
        -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac film.mp4";
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(arguments.split_whitespace()).current_dir(film.path()).stdin(Stdio::null());
    assert!(ffmpeg.status().is_ok_and(|status| status.success()), "ffmpeg makes the film");

    let mut room = String::new();
    let mut broadcast = String::new();
    let arguments = ["--room", "küche"];
    let measured = play_with(&url, "live", &arguments, |what| {
        match what {
            "begin" => {
                room = "/v1/rooms/k%C3%BCche".to_owned();
                let media = server.data().join("media");
                fs::create_dir_all(&media).expect("the data folder can be written");
                fs::copy(film.path().join("film.mp4"), media.join("film.mp4")).expect("just made");
                post(&server, "/v1/rooms", &json!({"name": "küche"}));
                post(&server, &format!("{room}/inputs"), &json!({"url": "file:film.mp4", "loop": true}));
                let begun = post(&server, &format!("{room}/broadcasts"), &json!({"kind": "hls", "public": true}));
                broadcast = format!("{room}/broadcasts/{}", begun["id"].as_str().expect("an id"));
            }
            "stop-server" => server.crash(),
            "start-server" => {
                let http = Some(server.http);
                server = Server::start_with(&Settings { http, ..Settings::default() });
            }
            "end" => {
                let ended = request("DELETE", &format!("{}{broadcast}", server.url()), &[], "");
                assert_eq!(ended.status, 200, "{ended:?}");
            }
            other => panic!("asked for {other}"),
        }
        "done".to_owned()
    });
    for step in ["waiting", "begun", "audio_only", "unreachable", "again", "ended"] {
        assert_eq!(measured[step], true, "{step}: {measured}");
    }
    for (when, least) in [("/before/page", 3.0), ("/before/other", 2.0), ("/after/page", 3.5), ("/after/other", 3.0)] {
        assert!(number(&measured, when) > least, "{when}: {measured}");
    }
    assert_eq!(number(&measured, "/audio_picture"), 0.0, "audio only loads no video");
    assert!(number(&measured, "/kept_picture") > 0.0, "the last picture stays");
    assert_eq!(number(&measured, "/overflow_px"), 0.0, "the page is wider than the window");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    server.stop();
}
