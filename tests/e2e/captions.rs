//! Captions by the API: in players of HLS, and in recordings.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http::request;
use crate::inputs::until;
use crate::scenario::{number, play_with};
use crate::server::Server;
use crate::with_retries;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
/// Frames per second of recordings.
const FPS: f64 = 30.0;

/// Start of the first caption in a recording and its text, as ffprobe reads it.
fn first_caption(file: &Path) -> (f64, String) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-i"]).arg(file).args(["-map", "0:s:0", "-f", "srt", "-"]);
    let output = ffmpeg.output().expect("`make test` installs ffmpeg");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8").replace(['\r', '\u{2060}'], "");
    let mut lines = text.lines().skip(1);
    let (start, _) = lines.next().and_then(|line| line.split_once(" --> ")).unwrap_or_else(|| panic!("no cue: {text}"));
    let numbers = start.split([':', ',']).map(|number| number.parse::<f64>().expect("a number"));
    let start = numbers.zip([3_600.0, 60.0, 1.0, 0.001]).map(|(number, unit)| number * unit).sum();
    (start, lines.next().unwrap_or_default().to_owned())
}

/// When the drawn caption, which is red, appears in the picture.
fn first_red(file: &Path) -> f64 {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-i"]).arg(file);
    ffmpeg.args(["-vf", "fps=30,crop=64:10:608:670,scale=1:1:flags=area", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
    let output = ffmpeg.output().expect("`make test` installs ffmpeg");
    let red = output.stdout.chunks_exact(3).position(|pixel| pixel[0] > 120 && pixel[1] < 90 && pixel[2] < 90);
    red.unwrap_or_else(|| panic!("{}: no red caption", file.display())) as f64 / FPS
}

#[test]
fn a_caption_is_shown_by_hls_players_and_is_in_recordings() {
    with_retries(a_caption_is_shown);
}

fn a_caption_is_shown() {
    let server = Server::start();
    let room = format!("{}/v1/rooms/c", server.url());
    let media = server.data().join("media");
    fs::create_dir_all(&media).expect("the data folder can be written");
    let film = "-nostdin -v error -f lavfi -i color=gray:s=640x360:r=25 -f lavfi -i sine=440:r=48000 -t 6 -g 25 \
        -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac film.mp4";
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(film.split_whitespace()).current_dir(&media).stdin(Stdio::null());
    assert!(ffmpeg.status().is_ok_and(|status| status.success()), "ffmpeg makes the film");

    let created = |path: &str, body: &Value| {
        let reply = request("POST", &format!("{room}{path}"), JSON, &body.to_string());
        assert_eq!(reply.status, 201, "{path}: {reply:?}");
        reply.json()["id"].as_str().expect("an id").to_owned()
    };
    let mut recordings = Vec::new();
    let mut speaker = String::new();
    let measured = play_with(&server.url(), "captions", &["--room", "c"], |what| match what.split_once(' ') {
        None => {
            let made = request("POST", &format!("{}/v1/rooms", server.url()), JSON, r#"{"name":"c"}"#);
            assert_eq!(made.status, 201, "{made:?}");
            created("/inputs", &json!({"url": "file:film.mp4", "loop": true, "name": "Ada \"Countess\""}));
            speaker = until("the film does not come", || {
                let state = request("GET", &room, &[], "").json();
                match state["participants"][0]["id"].as_str() {
                    Some(id) if state["inputs"][0]["state"] == "live" => Ok(id.to_owned()),
                    _ => Err(state.to_string()),
                }
            });
            created("/overlays", &json!({"kind": "caption", "color": "#c81e28", "background": "#c81e28"}));
            created("/broadcasts", &json!({"kind": "hls", "public": true}));
            recordings.extend(["mp4", "mkv"].map(|format| created("/recordings", &json!({"format": format}))));
            String::new()
        }
        Some((_, text)) => {
            for (text, is_final) in [("Das ist", false), (text, true)] {
                let caption = json!({"participant": speaker, "text": text, "final": is_final, "language": "de"});
                let reply = request("POST", &format!("{room}/captions"), JSON, &caption.to_string());
                assert_eq!(reply.status, 202, "{reply:?}");
            }
            String::new()
        }
    });
    let text = "Das <i>war</i> 1 < 2 & --> שלום 👩‍👩‍👧";
    let payload = "Das &lt;i&gt;war&lt;/i&gt; 1 &lt; 2 &amp; --&gt; שלום 👩‍👩‍👧";
    assert_eq!(number(&measured, "/known_when_off"), 0.0, "captions are off at first");
    for (player, mark) in [("of_page", "#1"), ("of_hls", "#2")] {
        let shown = format!("<v Ada\u{a0}Countess>Ada \"Countess\": {payload} {mark}</v>");
        assert_eq!(measured[player]["text"], shown, "{player}: {measured}");
        assert!((number(&measured, &format!("/{player}/lasts")) - 6.0).abs() < 0.01, "{player}: {measured}");
    }
    assert!(measured["of_shaka"]["text"].as_str().is_some_and(|text| text.contains(" #3")), "{measured}");
    for player in ["of_page", "of_hls", "of_shaka"] {
        let apart = number(&measured, &format!("/{player}/apart"));
        assert!(apart.abs() < 0.3, "{player}: the cue and the drawn caption are {apart} s apart: {measured}");
    }
    assert_eq!(measured["faults"], json!([]), "{measured}");
    assert_eq!(measured["remembered"], true, "{measured}");

    for recording in recordings {
        let path = format!("{room}/recordings/{recording}");
        request("DELETE", &path, &[], "");
        let finished = until("the recording does not end", || {
            let recording = request("GET", &path, &[], "").json();
            if recording["state"] == "finished" { Ok(recording) } else { Err(recording.to_string()) }
        });
        let file = server.data().join("recordings").join(finished["files"][0].as_str().expect("a file"));
        let (start, read) = first_caption(&file);
        assert_eq!(read, format!("Ada \"Countess\": {text} #1"), "{}", file.display());
        let drawn = first_red(&file);
        println!("{}: caption at {start}, drawn at {drawn}", file.display());
        assert!((start - drawn).abs() < 0.3, "{}: a cue at {start}, drawn at {drawn}", file.display());
    }
    server.stop();
}
