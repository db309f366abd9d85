//! Overlays in a recording, by its pixels.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http::request;
use crate::inputs::until;
use crate::server::Server;
use crate::turn;

pub(crate) const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// The mean colour of a part of a frame: `seek` are ffmpeg's arguments that choose the frame, `crop` chooses the part.
pub(crate) fn colour(file: &Path, seek: [&str; 2], crop: &str) -> [u8; 3] {
    let filter = format!("crop={crop},scale=1:1:flags=area");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error"]).args(seek).arg("-i").arg(file);
    command.args(["-frames:v", "1", "-vf", &filter, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
    let output = command.output().expect("`make test` installs ffmpeg");
    let problem = String::from_utf8_lossy(&output.stderr);
    output.stdout.try_into().unwrap_or_else(|_| panic!("{} has no frame at {seek:?}: {problem}", file.display()))
}

pub(crate) fn assert_near(seen: [u8; 3], expected: [u8; 3], what: &str) {
    let differs = seen.iter().zip(expected).any(|(seen, expected)| seen.abs_diff(expected) > 28);
    assert!(!differs, "{what}: {seen:?} instead of {expected:?}");
}

#[test]
fn a_text_and_an_image_are_in_a_recording_until_they_end() {
    let _turn = turn();
    let server = Server::start();
    let room = format!("{}/v1/rooms/o", server.url());
    let media = server.data().join("media");
    fs::create_dir_all(&media).expect("the data folder can be written");
    let film = "-nostdin -v error -f lavfi -i color=gray:s=640x360:r=25 -t 4 -c:v libx264 -preset ultrafast -g 25 \
        -pix_fmt yuv420p film.mp4";
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(film.split_whitespace()).current_dir(&media).stdin(Stdio::null());
    assert!(ffmpeg.status().is_ok_and(|status| status.success()), "ffmpeg makes the film");

    let created = |path: &str, body: &Value| {
        let reply = request("POST", &format!("{room}{path}"), JSON, &body.to_string());
        assert_eq!(reply.status, 201, "{path}: {reply:?}");
        reply.json()["id"].as_str().expect("an id").to_owned()
    };
    let made = request("POST", &format!("{}/v1/rooms", server.url()), JSON, r#"{"name":"o"}"#);
    assert_eq!(made.status, 201, "{made:?}");
    let svg =
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path fill="#00c800" d="M0 0h8v8H0z"/></svg>"##;
    let put = request("PUT", &format!("{room}/images/square.svg"), &[("content-type", "image/svg+xml")], svg);
    assert_eq!(put.status, 201, "{put:?}");
    created("/inputs", &json!({"url": "file:film.mp4", "loop": true}));
    let place = json!({"kind": "text", "text": "On air", "x": 0.1, "y": 0.1, "width": 0.4, "height": 0.2,
        "color": "#ffffff", "background": "#dc1e28"});
    let text = created("/overlays", &place);
    created(
        "/overlays",
        &json!({"kind": "image", "image": "square.svg", "x": 0.7, "y": 0.1, "width": 0.2, "height": 0.3}),
    );
    until("the film does not come", || {
        let state = request("GET", &room, &[], "").json();
        if state["inputs"][0]["state"] == "live" { Ok(()) } else { Err(state.to_string()) }
    });
    let recording = created("/recordings", &json!({}));
    let lasts = |seconds: f64| {
        until("it is not recorded", || {
            let recording = request("GET", &format!("{room}/recordings/{recording}"), &[], "").json();
            if recording["duration"].as_f64() >= Some(seconds) { Ok(()) } else { Err(recording.to_string()) }
        });
    };
    lasts(2.5);
    let ended = request("DELETE", &format!("{room}/overlays/{text}"), &[], "");
    assert_eq!((ended.status, &ended.json()["state"]), (200, &json!("ended")), "{ended:?}");
    lasts(5.0);
    request("DELETE", &format!("{room}/recordings/{recording}"), &[], "");
    let finished = until("the recording does not end", || {
        let recording = request("GET", &format!("{room}/recordings/{recording}"), &[], "").json();
        if recording["state"] == "finished" { Ok(recording) } else { Err(recording.to_string()) }
    });
    let file = server.data().join("recordings").join(finished["files"][0].as_str().expect("a file"));

    // On a canvas of 1280x720: left of the letters, in the image, and below both.
    let (plate, image, below) = ("24:60:140:110", "60:60:994:150", "200:100:500:500");
    let (early, late) = (["-ss", "1"], ["-sseof", "-0.5"]);
    assert_near(colour(&file, early, plate), [220, 30, 40], "the plate");
    assert_near(colour(&file, early, image), [0, 200, 0], "the image");
    assert_near(colour(&file, early, below), [128, 128, 128], "the film");
    assert_near(colour(&file, late, plate), [128, 128, 128], "the film where the text has ended");
    assert_near(colour(&file, late, image), [0, 200, 0], "the image, which stays");
    let letters = colour(&file, early, "256:144:256:72");
    assert!(letters[1] > 45, "white letters on the plate: {letters:?}");
    server.stop();
}
