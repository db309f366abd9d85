//! Filters of a participant in a recording, by its pixels.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http::request;
use crate::inputs::until;
use crate::overlays::{JSON, assert_near, colour};
use crate::server::{Server, Settings};
use crate::turn;

const SVG: &[(&str, &str)] = &[("content-type", "image/svg+xml")];

#[test]
fn chroma_key_and_a_failing_filter_of_the_operator_are_seen_in_a_recording() {
    let _turn = turn();
    // The operator adds a filter that fails after a second.
    let data = tempfile::tempdir().expect("the temporary folder can be written");
    for folder in ["pipelines", "media"] {
        fs::create_dir_all(data.path().join(folder)).expect("the data folder can be written");
    }
    let file =
        "# Fails.\n# media: video\n# parameter after: integer 1 to 1000, default 25\nidentity error-after={after}";
    fs::write(data.path().join("pipelines/filter_fails.gst"), file).expect("written");
    let film = "-nostdin -v error -f lavfi -i color=0x00ff00:s=640x360:r=25 \
        -vf drawbox=x=320:w=320:h=360:color=gray:t=fill \
        -t 4 -c:v libx264 -preset ultrafast -g 25 -pix_fmt yuv420p film.mp4";
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(film.split_whitespace()).current_dir(data.path().join("media")).stdin(Stdio::null());
    assert!(ffmpeg.status().is_ok_and(|status| status.success()), "ffmpeg makes the film");
    let arguments = ["--set", "filters.allow=chroma_key,fails"];
    let settings = Settings { data: Some(data.path()), arguments: &arguments, ..Settings::default() };
    let server = Server::start_with(&settings);
    let room = format!("{}/v1/rooms/f", server.url());
    let post = |url: &str, body: &Value| {
        let reply = request("POST", url, JSON, &body.to_string());
        assert_eq!(reply.status, 201, "{url}: {reply:?}");
        reply.json()
    };
    post(&format!("{}/v1/rooms", server.url()), &json!({"name": "f"}));
    let svg =
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path fill="#2040dc" d="M0 0h8v8H0z"/></svg>"##;
    assert_eq!(request("PUT", &format!("{room}/images/sea.svg"), SVG, svg).status, 201);
    let input = post(&format!("{room}/inputs"), &json!({"url": "file:film.mp4", "loop": true}));
    let participant = format!("{room}/participants/{}", input["participant"].as_str().expect("an id"));
    until("the film does not come", || {
        let state = request("GET", &room, &[], "").json();
        if state["inputs"][0]["state"] == "live" { Ok(()) } else { Err(state.to_string()) }
    });

    let patch = |filters: Value| request("PATCH", &participant, JSON, &json!({ "filters": filters }).to_string());
    for (filters, named) in [
        (json!([{"name": "blur"}]), "chroma_key, fails"),
        (json!([{"name": "chroma_key", "angle": 91}]), "0 to 90"),
        (json!([{"name": "chroma_key", "image": "lake"}]), "images/lake"),
    ] {
        let refused = patch(filters);
        refused.assert_problem("filters", &[422]);
        assert!(refused.body.contains(named), "{refused:?}");
    }
    let key = json!({"name": "chroma_key", "image": "sea.svg"});
    let applied = patch(json!([key, {"name": "fails"}]));
    assert_eq!(applied.status, 200, "{applied:?}");
    assert_eq!(applied.json()["filters"][1], json!({"name": "fails", "source": "camera", "after": 25}));

    let recording = post(&format!("{room}/recordings"), &json!({}))["id"].as_str().expect("an id").to_owned();
    until("the failing filter is not removed, or the other has no CPU time", || {
        let filters = request("GET", &participant, &[], "").json()["filters"].clone();
        let is_alone = filters.as_array().is_some_and(|filters| filters.len() == 1);
        if is_alone && filters[0]["cpu_ms"].as_f64() > Some(0.0) { Ok(()) } else { Err(filters.to_string()) }
    });
    until("it is not recorded", || {
        let recording = request("GET", &format!("{room}/recordings/{recording}"), &[], "").json();
        if recording["duration"].as_f64() >= Some(4.0) { Ok(()) } else { Err(recording.to_string()) }
    });
    request("DELETE", &format!("{room}/recordings/{recording}"), &[], "");
    let finished = until("the recording does not end", || {
        let recording = request("GET", &format!("{room}/recordings/{recording}"), &[], "").json();
        if recording["state"] == "finished" { Ok(recording) } else { Err(recording.to_string()) }
    });
    let file = data.path().join("recordings").join(finished["files"][0].as_str().expect("a file"));
    // On a canvas of 1280x720: in the left half, which was green, and in the right one.
    let last = ["-sseof", "-0.5"];
    assert_near(colour(&file, last, "300:300:150:200"), [32, 64, 220], "the image behind");
    assert_near(colour(&file, last, "300:300:830:200"), [128, 128, 128], "the film");
    assert_eq!(server.mixers().len(), 1);
    assert!(!server.log().contains("mixer lost"), "{}", server.log());
    server.stop();
}
