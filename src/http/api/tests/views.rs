//! Views: named ones, and those of participants.

use serde_json::json;

use super::*;

const VIEW: &str = "/v1/rooms/r/views/stage";

#[tokio::test]
async fn a_view_is_created_replaced_and_deleted() {
    let api = Api::new();
    api.get(VIEW).await.problem(404);
    api.send_json("POST", "/v1/rooms", r#"{"name":"r"}"#).await;
    let body = r#"{"layout":{"kind":"speaker"},"canvas":{"width":720,"height":1280},"fps":15,"hide":["self","p2"]}"#;
    let created = api.send_json("PUT", VIEW, body).await;
    assert_eq!((created.status, created.header("location")), (201, VIEW));
    assert_eq!(
        created.json(),
        json!({"view": "stage", "kind": "speaker", "canvas": {"width": 720, "height": 1280}, "tiles": [],
            "layout": {"kind": "speaker"}, "fps": 15, "show": null, "hide": ["self", "p2"]})
    );
    assert_eq!(api.get(VIEW).await.json(), created.json());
    let replaced = api.send_json("PUT", VIEW, r#"{"show":["p1","p3/screen"]}"#).await;
    assert_eq!((replaced.status, &replaced.json()["canvas"]["width"]), (200, &json!(1280)));
    assert_eq!(replaced.json()["show"], json!(["p1", "p3/screen"]));
    let views = api.get("/v1/rooms/r").await.json()["views"].clone();
    assert_eq!((&views[0]["view"], &views[1]["view"]), (&json!("program"), &json!("stage")));
    for (body, part) in [
        (r#"{"layouts":{}}"#, "`layout`, `canvas`, `fps`, `show`, `hide`"),
        (r#"{"layout":{"kind":"circle"}}"#, "`one_plus_5`"),
        (r#"{"hide":["me"]}"#, "`listeners`"),
    ] {
        let detail = api.send_json("PUT", VIEW, body).await.problem(422);
        assert!(detail.contains(part), "{detail}");
    }
    assert!(api.send_json("PUT", "/v1/rooms/r/views/own", "{}").await.problem(422).contains("reserved"));
    api.send("DELETE", "/v1/rooms/r/views/program", &[], "").await.problem(409);
    assert_eq!(api.send("DELETE", VIEW, &[], "").await.status, 204);
    assert!(api.get(VIEW).await.problem(404).contains("`program`"));
    for i in 1..16 {
        assert_eq!(api.send_json("PUT", &format!("/v1/rooms/r/views/v{i}"), "{}").await.status, 201);
    }
    assert_eq!(api.send_json("PUT", VIEW, "{}").await.json()["code"], "too_many_views");
    // `program` is a view too.
    let program = api.send_json("PUT", "/v1/rooms/r/views/program", r#"{"layout":{"kind":"grid"}}"#).await;
    assert_eq!((program.status, api.get("/v1/rooms/r").await.json()["layout"].clone()), (200, json!({"kind": "grid"})));
}

#[tokio::test]
async fn a_participant_changes_its_view() {
    let api = Api::new();
    let (_client, session) = api.call("r").await;
    let id = api.get(&session).await.json()["id"].as_str().expect("connected").to_owned();
    let path = format!("/v1/rooms/r/participants/{id}");
    let patch = async |body: &str| api.send_json("PATCH", &path, body).await;
    assert!(patch(r#"{"view":"stage"}"#).await.problem(404).contains("`program`, and `own`"));
    assert!(patch(r#"{"view":"program","layout":{"kind":"grid"}}"#).await.problem(422).contains("`own`"));
    assert!(patch(r#"{"layout":{"kind":"circle"}}"#).await.problem(422).contains("`one_plus_5`"));
    assert!(patch(r#"{"self_view":"no"}"#).await.problem(422).contains("`hidden`"));
    let own = patch(r#"{"view":"own","layout":{"kind":"active"},"self_view":"hidden"}"#).await.json();
    assert_eq!(own["view"], own["receives"]["view"]);
    assert!(own["view"].as_str().expect("a name").starts_with("own-"), "{own}");
    api.send_json("PUT", VIEW, "{}").await;
    let named = patch(r#"{"view":"stage","self_view":"shown"}"#).await.json();
    assert_eq!((&named["view"], &named["receives"]["view"]), (&json!("stage"), &json!("stage")));
    assert_eq!(api.send("DELETE", VIEW, &[], "").await.status, 204);
    assert_eq!(api.get(&path).await.json()["view"], "program");
    let unknown = format!("{path}9");
    api.send_json("PATCH", &unknown, r#"{"view":"own"}"#).await.problem(404);
}

#[tokio::test]
async fn a_join_for_an_unknown_view_creates_no_room() {
    let api = Api::new();
    let refused = api.post_offer("/whep/r?view=stage", &offer("recvonly")).await;
    assert!(refused.problem(404).contains("`program`"));
    api.get("/v1/rooms/r").await.problem(404);
}
