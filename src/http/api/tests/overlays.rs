//! Overlays, images and captions by HTTP.

use axum::body::Bytes;

use super::*;

const SVG: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 4 2'><path d='M0 0h4v2z'/></svg>";

#[tokio::test]
async fn an_overlay_is_added_changed_and_ended() {
    let api = Api::new();
    let path = "/v1/rooms/r/overlays";
    api.send_json("POST", path, r#"{"kind":"clock"}"#).await.problem(404);
    assert_eq!(api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await.status, 201);
    let body = r##"{"view":"program","kind":"text","text":"Welcome","x":0.1,"y":0.1,"width":0.5,"height":0.2,
        "color":"#ffffff","background":"#c0392b80","seconds":null}"##;
    let made = api.send_json("POST", path, body).await;
    assert_eq!((made.status, made.header("location")), (201, "/v1/rooms/r/overlays/v1"), "{made:?}");
    let overlay = made.json();
    assert_eq!(
        (&overlay["id"], &overlay["background"], &overlay["width"]),
        (&"v1".into(), &"#c0392b80".into(), &0.5.into())
    );
    let one = "/v1/rooms/r/overlays/v1";
    let changed = api.send_json("PATCH", one, r#"{"text":"Good bye","width":null,"seconds":60}"#).await;
    assert_eq!((changed.status, changed.json()["text"].as_str()), (200, Some("Good bye")), "{changed:?}");
    assert_eq!(changed.json()["width"], Value::Null);
    for document in [api.get(path).await.json(), api.get("/v1/rooms/r").await.json()["overlays"].clone()] {
        assert_eq!(document, Value::Array(vec![changed.json()]));
    }
    assert_eq!(api.get(one).await.json(), changed.json());
    for (body, part) in [
        (r#"{"kind":"banner"}"#, "lower_third"),
        (r#"{"kind":"text","text":"a","color":"red"}"#, "#rrggbb"),
        (r#"{"kind":"text","text":"a","x":0.9,"width":0.5}"#, "fractions"),
        (r#"{"kind":"ticker"}"#, "text"),
    ] {
        let detail = api.send_json("POST", path, body).await.problem(422);
        assert!(detail.contains(part), "{detail}");
    }
    assert!(api.send_json("PATCH", one, r##"{"colour":"#ffffff"}"##).await.problem(422).contains("`color`"));
    assert!(api.send_json("POST", path, r#"{"kind":"image","image":"a.png"}"#).await.problem(404).contains("PUT"));
    let ended = api.send("DELETE", one, &[], "").await;
    assert_eq!((ended.status, ended.json()["state"].as_str()), (200, Some("ended")), "{ended:?}");
    api.get(one).await.problem(404);
    api.send("DELETE", one, &[], "").await.problem(404);
}

#[tokio::test]
async fn an_image_is_uploaded_read_and_deleted() {
    let api = Api::new();
    api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await;
    let path = "/v1/rooms/r/images/logo.svg";
    let put = async |body: Bytes| api.send("PUT", path, &[("content-type", "image/svg+xml")], body).await;
    let made = put(SVG.into()).await;
    assert_eq!((made.status, made.header("location")), (201, path), "{made:?}");
    assert_eq!(made.json(), serde_json::json!({"name": "logo.svg", "type": "svg", "bytes": SVG.len()}));
    assert_eq!(put(SVG.into()).await.status, 200);
    let read = api.get(path).await;
    assert_eq!((read.status, read.body.as_str(), read.header("content-type")), (200, SVG, "image/svg+xml"));
    assert!(read.header("content-security-policy").contains("sandbox"));
    assert_eq!(api.get("/v1/rooms/r").await.json()["images"], api.get("/v1/rooms/r/images").await.json());
    assert!(put("GIF89a".into()).await.problem(415).contains("PNG, JPEG or SVG"));
    assert!(put("<svg><image/></svg>".into()).await.problem(422).contains("<image"));
    put(vec![0; 4 * 1024 * 1024 + 1].into()).await.problem(413);
    assert!(api.send("PUT", "/v1/rooms/r/images/.svg", &[], SVG).await.problem(400).contains("letters, digits"));
    let shown = api.send_json("POST", "/v1/rooms/r/overlays", r#"{"kind":"image","image":"logo.svg"}"#).await;
    assert_eq!(shown.status, 201, "{shown:?}");
    assert_eq!(api.send("DELETE", path, &[], "").await.status, 204);
    api.get(path).await.problem(404);
    assert_eq!(api.get("/v1/rooms/r/overlays").await.json(), serde_json::json!([]));
}

#[tokio::test]
async fn captions_need_a_speaker_who_is_there() {
    let api = Api::new();
    api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await;
    let path = "/v1/rooms/r/captions";
    let detail = api.send_json("POST", path, r#"{"participant":"p1","text":"Hello","final":true}"#).await.problem(404);
    assert!(detail.contains("p1"), "{detail}");
    api.send_json("POST", path, r#"{"participant":"p1"}"#).await.problem(422);
    api.send_json("POST", path, r#"{"participant":"p1","text":"a","language":"e n"}"#).await.problem(422);
}
