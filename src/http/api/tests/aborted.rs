//! Clients that close their connection while a request is at work: the server drops the handler's future at any await.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rtc::peer_connection::configuration::RTCOfferOptions;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::room::document::TierChoice;
use crate::room::view_request::ViewPatch;
use crate::rooms::{JoinEndpoint, JoinOptions, Joined};

const JOINS: usize = 500;

/// Waits until no room and no session is left, and as few tasks run as before.
async fn settled(api: &Api, tasks: usize) {
    let counters = api.app.rooms().counters().clone();
    let state = || {
        let alive = Handle::current().metrics().num_alive_tasks();
        (counters.rooms.get(), counters.sessions.get(), alive)
    };
    let settles = async {
        while state().0 > 0 || state().1 > 0 || state().2 > tasks {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let settled = timeout(PATIENCE, settles).await;
    assert!(settled.is_ok(), "{:?} rooms, sessions and tasks are left, of {tasks} tasks", state());
}

/// An API without limits of joins that has served a session, and how many tasks it runs without any.
async fn warm() -> (Api, usize) {
    let api = Api::with(|config| {
        config.limits.joins_per_second = 100_000;
        config.limits.joins_burst = 100_000;
        config.limits.pending_per_address = 100_000;
        config.limits.pending_total = 100_000;
        config.rooms.linger_seconds = 0;
    });
    let before = Handle::current().metrics().num_alive_tasks();
    let (session, _) = api.join("r").await;
    assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200);
    settled(&api, before).await;
    (api, before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_aborted_at_random_moments_leave_nothing_behind() {
    let (api, tasks) = warm().await;
    let mut dice = StdRng::seed_from_u64(12);
    let (mut aborted, mut answered) = (0, Vec::new());
    for n in 0..JOINS {
        let path = format!("/v1/rooms/room-{}/participants", n % 7);
        let direction = ["sendrecv", "recvonly", "sendonly"][n % 3];
        let offer = offer(direction);
        // Polled a random number of times, then dropped: timing does not decide how many are aborted.
        let mut post = Box::pin(api.post_offer(&path, &offer));
        let mut reply = None;
        for _ in 0..dice.random_range(0..40) {
            if let std::task::Poll::Ready(answer) = futures::poll!(&mut post) {
                reply = Some(answer);
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(post);
        match reply {
            Some(reply) => {
                assert_eq!(reply.status, 201, "{reply:?}");
                answered.push(reply.header("location").to_owned());
            }
            None => aborted += 1,
        }
        // Also while the room ends, and begins anew.
        if dice.random_bool(0.3) {
            for session in answered.drain(..) {
                assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200);
            }
        }
    }
    assert!(aborted >= JOINS / 10, "only {aborted} joins were aborted");
    for session in answered {
        assert_eq!(api.send("DELETE", &session, &[], "").await.status, 200);
    }
    settled(&api, tasks).await;
    assert_eq!(api.mixers(), 0);
}

#[tokio::test]
async fn a_join_aborted_at_any_await_leaves_nothing_behind() {
    let (api, tasks) = warm().await;
    let name = || "r".parse().expect("a name");
    let options = |endpoint| JoinOptions {
        name: String::new(),
        role: Role::Participant,
        tier: TierChoice::Auto,
        view: ViewPatch::default(),
        bot: false,
        identity: None,
        endpoint,
        seat: None,
    };
    for direction in ["sendrecv", "recvonly"] {
        let offer = offer(direction);
        let mut polls = 0_usize;
        loop {
            let room = name();
            let mut join = Box::pin(api.app.rooms().join(&room, &offer, options(JoinEndpoint::Participants)));
            // Polled so often, then dropped; other tasks run in between.
            let mut joined: Option<Joined> = None;
            for _ in 0..polls {
                if let std::task::Poll::Ready(done) = futures::poll!(&mut join) {
                    joined = Some(done.expect("it is let in"));
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(join);
            if let Some(joined) = joined {
                api.app.rooms().leave(&joined.secret).expect("it is there");
                settled(&api, tasks).await;
                break;
            }
            settled(&api, tasks).await;
            polls += 1 + polls / 4;
            assert!(polls < 100_000, "it never ends");
        }
        assert!(polls > 1, "{direction}: it has no await at all");
    }
}

#[tokio::test]
async fn a_renegotiation_that_nobody_waits_for_is_done_whole() {
    let (api, _) = warm().await;
    let (mut client, session) = api.call("r").await;
    let before = api.get(&session).await;
    let offer = client.offer(Some(RTCOfferOptions { ice_restart: true })).await;
    let headers = [("content-type", SDP)];
    let mut patch = Box::pin(api.send("PATCH", &session, &headers, offer.clone()));
    let _ = futures::poll!(&mut patch);
    drop(patch);
    let changed = async {
        while api.get(&session).await.header("etag") == before.header("etag") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, changed).await.expect("ICE restarts and the entity tag follows");
    assert_eq!(api.get(&session).await.json()["id"], before.json()["id"]);
    // The next one finds nothing half done.
    assert_eq!(api.send("PATCH", &session, &headers, offer).await.status, 200);
}
