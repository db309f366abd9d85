//! Inputs by HTTP: accepted and refused URLs, the limit, and that secrets are not returned.

use super::*;

async fn post(api: &Api, body: &str) -> Reply {
    api.send("POST", "/v1/rooms/r/inputs", &[("content-type", JSON)], body.to_owned()).await
}

#[tokio::test]
async fn an_input_is_started_read_and_stopped() {
    let api = Api::new();
    let reply = post(&api, r#"{"url":"srt://203.0.113.1:9000?passphrase=0123456789&streamid=mine","loop":true}"#).await;
    // 203.0.113.0/24 is reserved for documentation.
    assert!(reply.problem(422).contains("reserved"));
    let reply = post(&api, r#"{"url":"srt://8.8.8.8:9000?passphrase=0123456789&streamid=mine","loop":true}"#).await;
    assert_eq!((reply.status, reply.header("location")), (201, "/v1/rooms/r/inputs/i1"), "{reply:?}");
    let input = reply.json();
    assert_eq!((input["state"].as_str(), input["name"].as_str()), (Some("starting"), Some("8.8.8.8")));
    assert_eq!((input["participant"].as_str(), input["loop"].as_bool()), (Some("p1"), Some(true)));
    for path in ["/v1/rooms/r", "/v1/rooms/r/inputs", "/v1/rooms/r/inputs/i1"] {
        let text = api.get(path).await.body;
        assert!(text.contains("srt://8.8.8.8:9000"), "{text}");
        assert!(!text.contains("0123456789") && !text.contains("mine"), "{path} returns secrets: {text}");
    }
    assert_eq!(api.get("/v1/rooms/r/participants/p1").await.json()["name"], "8.8.8.8");
    let ended = api.send("DELETE", "/v1/rooms/r/inputs/i1", &[], "").await;
    assert_eq!((ended.status, ended.json()["state"].as_str()), (200, Some("finished")), "{ended:?}");
    api.get("/v1/rooms/r/participants/p1").await.problem(404);
    api.send("DELETE", "/v1/rooms/r/inputs/i9", &[], "").await.problem(404);
}

#[tokio::test]
async fn private_addresses_and_invalid_urls_are_refused() {
    let api = Api::new();
    for url in [
        "http://127.0.0.1:8080/x",
        "http://[::ffff:169.254.169.254]/latest",
        "rtsp://[::1]/x",
        "rtmp://10.0.0.1/live/key",
        "srt://192.168.1.1:9000",
        "file:../secret.mp4",
        "file:/etc/passwd",
        "gopher://8.8.8.8/",
        "rtp://8.8.8.8:5004",
        "nonsense",
    ] {
        let detail = post(&api, &format!(r#"{{"url":"{url}"}}"#)).await.problem(422);
        assert!(!detail.contains("secret.mp4") && !detail.contains("passwd"), "{url}: {detail}");
    }
    assert!(post(&api, r#"{"name":"without a URL"}"#).await.problem(422).contains("url"));
    api.get("/v1/rooms/r").await.problem(404);
}

#[tokio::test]
async fn the_number_of_inputs_is_limited() {
    let api = Api::new();
    for _ in 0..2 {
        assert_eq!(post(&api, r#"{"url":"file:clip.mp4","name":"Clip"}"#).await.status, 201);
    }
    assert!(post(&api, r#"{"url":"file:clip.mp4"}"#).await.problem(409).contains("rooms.max_inputs"));
}
