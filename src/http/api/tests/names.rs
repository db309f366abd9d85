//! Names of rooms in URLs, the page of a room, and invitations.

use serde_json::json;

use super::*;

#[tokio::test]
async fn rooms_with_unicode_names_are_addressed_by_percent_encoded_urls() {
    let api = Api::new();
    let made = api.send_json("POST", "/v1/rooms", r#"{"name":"Kaffeeküche"}"#).await;
    assert_eq!((made.status, made.header("location")), (201, "/v1/rooms/Kaffeek%C3%BCche"), "{made:?}");
    assert_eq!(api.get("/v1/rooms/Kaffeek%C3%BCche").await.json()["name"], "Kaffeeküche");
    // Names that differ in letters outside ASCII are different rooms.
    for (path, name) in [("%E6%9C%9D", "朝"), ("%E5%A4%9C", "夜"), ("%E6%9C%9D-%E4%BC%9A", "朝-会")] {
        api.get(&format!("/v1/rooms/{path}")).await.problem(404);
        api.join(path).await;
        assert_eq!(api.get(&format!("/v1/rooms/{path}")).await.json()["name"], name);
    }
    let broadcast = api.send_json("POST", "/v1/rooms/%E6%9C%9D/broadcasts", r#"{"kind":"hls"}"#).await;
    assert_eq!((broadcast.status, &broadcast.json()["url"]), (201, &json!("/hls/%E6%9C%9D/index.m3u8")));
    assert_eq!(broadcast.header("location"), "/v1/rooms/%E6%9C%9D/broadcasts/o1");
}

#[tokio::test]
async fn other_names_are_refused_on_every_path_of_a_room() {
    let api = Api::new();
    // Space, emoji, NFD, zero-width joiner, slash, dot, not UTF-8, 65 characters.
    let long = "x".repeat(65);
    for bad in ["a%20b", "%F0%9F%8E%89", "e%CC%81", "a%E2%80%8Db", "a%2Fb", "a.b", "%FF", "a%3Fb", &long] {
        for path in ["/v1/rooms/{}", "/v1/rooms/{}/participants", "/whip/{}", "/whep/{}", "/hls/{}/index.m3u8"] {
            let reply = api.get(&path.replace("{}", bad)).await;
            reply.problem(400);
            assert_eq!(reply.json()["code"], "bad_room_name", "{path} {bad}: {reply:?}");
        }
        let reply = api.post_offer(&format!("/v1/rooms/{bad}/participants"), &offer("sendrecv")).await;
        assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("bad_room_name")), "{bad}");
    }
    let reply = api.get("/v1/recordings?room=a%20b").await;
    assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("bad_room_name")));
    let reply = api.send_json("POST", "/v1/rooms", r#"{"name":"a b"}"#).await;
    assert_eq!((reply.status, &reply.json()["code"]), (422, &json!("bad_room_name")));
    assert_eq!(api.get("/v1/rooms").await.json(), json!([]), "no room was made under another name");
}

#[tokio::test]
async fn a_name_as_path_opens_the_page_of_the_room() {
    let api = Api::new();
    let root = api.get("/").await;
    assert_eq!(root.status, 200);
    for path in ["/daily", "/Kaffeek%C3%BCche", "/daily?token=x", "/-", "/%E6%9C%9D"] {
        let page = api.get(path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert_eq!(page.body, root.body);
        assert_eq!(page.header("referrer-policy"), "no-referrer");
    }
    let moved = api.get("/Kaffeek%C3%BCche/?token=x").await;
    assert_eq!((moved.status, moved.header("location")), (307, "/Kaffeek%C3%BCche?token=x"));
    // A person sees the page, which explains the name; a program gets the problem.
    let page = api.send("GET", "/my%20room", &[("accept", "text/html,*/*;q=0.8")], "").await;
    assert_eq!((page.status, &page.body), (400, &root.body));
    let reply = api.get("/my%20room").await;
    reply.problem(400);
    assert_eq!(reply.json()["code"], "bad_room_name");
    api.get("//example.org").await.problem(404);
    api.get("//example.org/").await.problem(404);
    api.send("POST", "/daily", &[], "").await.problem(404);
}

#[tokio::test]
async fn moderators_invite_with_a_role_and_an_expiry() {
    let api = Api::keyed();
    let invite = async |role: Role, body: &str| {
        let bearer = format!("Bearer {}", token(Some("küche"), role));
        let headers = [("authorization", bearer.as_str()), ("content-type", JSON)];
        api.send("POST", "/v1/rooms/k%C3%BCche/invitations", &headers, body.to_owned()).await
    };
    let before = time::unix_seconds();
    let made = invite(Role::Moderator, r#"{"role":"viewer","ttl_seconds":3600,"name":"Kim"}"#).await;
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"), "{made:?}");
    let invitation = made.json();
    assert_eq!(invitation["role"], "viewer");
    assert_eq!(invitation["room"], "küche");
    let text = invitation["token"].as_str().expect("a token");
    assert_eq!(invitation["url"], format!("http://localhost:8080/k%C3%BCche?token={text}"));
    let expires = invitation["expires_at"].as_str().expect("a time");
    let format = &::time::format_description::well_known::Rfc3339;
    let expires = ::time::OffsetDateTime::parse(expires, format).expect("RFC 3339").unix_timestamp() as u64;
    assert!((before + 3600..before + 3660).contains(&expires), "{expires}");

    // The invitation is a viewer's token for this room only.
    let bearer = format!("Bearer {text}");
    let headers = [("authorization", bearer.as_str()), ("content-type", SDP)];
    let path = "/v1/rooms/k%C3%BCche/participants";
    assert_eq!(api.send("POST", path, &headers, offer("recvonly")).await.status, 201);
    api.send("POST", path, &headers, offer("sendrecv")).await.problem(403);
    api.send("POST", "/whep/other", &headers, offer("recvonly")).await.problem(403);

    assert_eq!(invite(Role::Moderator, "{}").await.json()["role"], "participant");
    invite(Role::Participant, "{}").await.problem(403);
    invite(Role::Viewer, "{}").await.problem(403);
    invite(Role::Moderator, r#"{"role":"operator"}"#).await.problem(422);
    invite(Role::Moderator, r#"{"role":"king"}"#).await.problem(422);
    invite(Role::Moderator, r#"{"ttl":60}"#).await.problem(422);
    invite(Role::Moderator, r#"{"ttl_seconds":1}"#).await.problem(422);

    let open = Api::new().send_json("POST", "/v1/rooms/r/invitations", "{}").await;
    open.problem(409);
    assert_eq!(open.json()["code"], "no_key");
}

#[tokio::test]
async fn a_public_broadcast_needs_no_token_and_has_a_page() {
    let api = Api::keyed();
    let bearer = format!("Bearer {}", token(Some("küche"), Role::Moderator));
    let headers = [("authorization", bearer.as_str()), ("content-type", JSON)];
    let begin = async |body: &str| api.send("POST", "/v1/rooms/k%C3%BCche/broadcasts", &headers, body.to_owned()).await;
    let page = api.get("/live/k%C3%BCche").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    api.get("/live/a%20b").await.problem(400);
    let playlist = "/hls/k%C3%BCche/index.m3u8";
    api.get(playlist).await.problem(401);
    api.send("POST", "/v1/rooms/k%C3%BCche/participants", &[headers[0], ("content-type", SDP)], offer("sendrecv"))
        .await;

    begin(r#"{"kind":"hls"}"#).await.json();
    api.get(playlist).await.problem(401);
    let public = begin(r#"{"kind":"hls","public":true}"#).await;
    assert_eq!((public.status, &public.json()["public"]), (201, &json!(true)), "{public:?}");
    // The room starts the broadcast soon. The output process of this test sends nothing, so the files never come.
    let file = "/hls/k%C3%BCche/high/1-0.m4s";
    let begun = async {
        while api.get(file).await.status == 401 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("it begins");
    api.get(file).await.problem(404);
    api.get("/v1/rooms/k%C3%BCche").await.problem(401);
    api.get("/hls/other/high/1-0.m4s").await.problem(401);
    let refused = begin(r#"{"url":"rtmp://192.0.2.1/app/key","public":true}"#).await;
    assert!(refused.problem(422).contains("public"));
}
