//! 200 people with their events open while one of them floods: the events of others arrive, and nobody is disconnected.
//! The test prints how late they are (aim: at most 300 ms); time does not decide it.

use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::chat::{Seated, seat};
use super::events::{Socket, next, open};
use super::limits::token_of;
use super::*;
use crate::time::Timestamp;

const PEOPLE: usize = 200;
/// Those of them who have joined; the others read with a token. Joins take CPU time, and a session that never connects
/// ends.
const SEATED: usize = 40;
/// How long one participant floods.
const FLOOD: Duration = Duration::from_secs(6);
/// Messages of another participant meanwhile.
const WORDS: usize = 12;

/// Reads the events of one person; returns how late each message of `p2` was, by the time in its text.
fn reads(mut socket: Socket) -> JoinHandle<Vec<Duration>> {
    tokio::spawn(async move {
        let mut late = Vec::new();
        while late.len() < WORDS {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    // Most events are not for this measurement, and 200 readers share the cores with the server.
                    if !text.contains("\"participant\":\"p2\"") || !text.starts_with("{\"type\":\"chat\"") {
                        continue;
                    }
                    let event: Value = serde_json::from_str(&text).expect("JSON");
                    let sent: u64 = event["text"].as_str().expect("a text").parse().expect("a time");
                    late.push(time::now().since(Timestamp::from_micros(sent)));
                }
                Some(Ok(_)) => {}
                end => panic!("disconnected after {} messages: {end:?}", late.len()),
            }
        }
        late
    })
}

/// Sends chat, hands, reactions and changes as fast as they are taken, by WebSockets that are opened again when they are
/// closed, and by requests.
async fn floods(api: &Api, address: SocketAddr, secret: &str, until: Timestamp) -> usize {
    let (events, own) =
        (format!("/v1/rooms/r/events?session={secret}"), format!("/v1/rooms/r/participants/p1?session={secret}"));
    let messages = |n: usize| {
        [
            json!({"type": "chat", "text": "x".repeat(1_900)}),
            json!({"type": "hand", "raised": n.is_multiple_of(2)}),
            json!({"type": "reaction", "emoji": "👏"}),
            json!({"type": "update", "audio_muted": n.is_multiple_of(2), "name": format!("Ann {n}")}),
        ]
    };
    let by_sockets = async {
        let mut sent = 0;
        while time::now() < until {
            // All that a session may have open may be closing.
            let Ok(mut socket) = open(address, &events).await else { continue };
            'open: for n in 0.. {
                for message in messages(n) {
                    if socket.send(Message::text(message.to_string())).await.is_err() || time::now() >= until {
                        break 'open;
                    }
                    sent += 1;
                }
            }
        }
        sent
    };
    let by_requests = async {
        let mut sent = 0_usize;
        while time::now() < until {
            let body = format!(r#"{{"hand_raised":{},"video_muted":{0}}}"#, (sent / 2).is_multiple_of(2));
            api.send_json("PATCH", &own, &body).await;
            api.send_json("POST", &format!("/v1/rooms/r/chat?session={secret}"), r#"{"text":"x"}"#).await;
            sent += 2;
            tokio::task::yield_now().await;
        }
        sent
    };
    let (a, b) = tokio::join!(by_sockets, by_requests);
    a + b
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_participant_loses_no_event_of_others_and_disconnects_nobody() {
    let api = Api::with(|config| {
        config.auth.key = Some(Secret::from(KEY.to_owned()));
        config.rooms.max_participants = PEOPLE as u32;
        config.limits.event_streams_per_address = 2 * PEOPLE;
        config.limits.event_streams_per_token = 2 * PEOPLE;
        (config.limits.joins_per_second, config.limits.joins_burst) = (1_000, 1_000);
        (config.limits.pending_per_address, config.limits.pending_total) = (2 * PEOPLE, 2 * PEOPLE);
        (config.limits.connections, config.limits.connections_per_address) = (4 * PEOPLE, 4 * PEOPLE);
    });
    let address = api.listen().await;
    let mut people = Vec::new();
    for n in 0..SEATED {
        people.push(seat(&api, address, &format!("Person {n}"), Role::Participant).await);
    }
    let secret = people[0].secret.clone();
    let other = format!("/v1/rooms/r/events?session={}", people[1].secret);
    let mut other = open(address, &other).await.expect("it opens");
    let mut sockets: Vec<_> = people.into_iter().map(|Seated { socket, .. }| socket).collect();
    let by_token = format!("/v1/rooms/r/events?token={}", token_of("Reader", Role::Viewer, 600.0));
    while sockets.len() < PEOPLE {
        let mut socket = open(address, &by_token).await.expect("it opens");
        assert_eq!(next(&mut socket).await["type"], "room");
        sockets.push(socket);
    }
    let readers: Vec<_> = sockets.into_iter().map(reads).collect();
    let until = time::now() + FLOOD;
    let words = async {
        for _ in 0..WORDS {
            tokio::time::sleep(FLOOD / (WORDS as u32 + 1)).await;
            let text = time::now().as_micros().to_string();
            other.send(Message::text(json!({"type": "chat", "text": text}).to_string())).await.expect("it is open");
        }
    };
    let (flooded, ()) = tokio::join!(floods(&api, address, &secret, until), words);
    let all = tokio::time::timeout(PATIENCE, join_all(readers)).await.expect("all messages arrive");
    let mut late: Vec<Duration> = all.into_iter().flat_map(|late| late.expect("nobody is disconnected")).collect();
    late.sort_unstable();
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    eprintln!(
        "{flooded} requests of one; {} deliveries of another: median {:?}, 99 % {:?}, latest {:?}",
        late.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(flooded > 200, "{flooded} requests are no flood");
    assert_eq!(late.len(), PEOPLE * WORDS);
    assert!(api.app.metrics().text().contains("commingle_event_streams_too_slow_total 0"));
}
