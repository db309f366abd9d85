//! Two agents that talk, in virtual time.

use super::*;

const SERVER: &str = "192.0.2.1:8189";

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

fn credentials(name: &str) -> Credentials {
    Credentials { ufrag: name.to_owned(), password: format!("{name}-password-of-24-letters") }
}

fn agent(role: Role, local: &str, remote: &str, candidates: &[&str]) -> Agent {
    let crypto = rtc::crypto::default_provider().expect("ring is built in");
    let candidates = candidates.iter().map(|address| at(address)).collect();
    Agent::new(crypto, role, credentials(local), credentials(remote), candidates, Timestamp::default())
}

fn bot(candidates: &[&str]) -> Agent {
    agent(Role::Controlling, "bot", "server", candidates)
}

fn server() -> Agent {
    agent(Role::Controlled, "server", "bot", &[])
}

/// Everything both sides have to say at a time is said; the client is at one address.
fn talk(now: Timestamp, client: &mut Agent, server: &mut Agent, client_at: &str) {
    let mut to_server = Vec::new();
    for _ in 0..4 {
        to_server.extend(client.poll(now).into_iter().filter(|(to, _)| *to == at(SERVER)));
        let answers: Vec<_> =
            to_server.drain(..).filter_map(|(_, check)| server.handle(now, at(client_at), &check)).collect();
        let to_client = answers.into_iter().map(|answer| (at(client_at), answer)).chain(server.poll(now));
        for (to, datagram) in to_client {
            if to == at(client_at) {
                to_server.extend(client.handle(now, at(SERVER), &datagram).map(|answer| (at(SERVER), answer)));
            }
        }
    }
}

#[test]
fn the_first_address_that_answers_is_taken_and_asked_for_consent() {
    let (mut bot, mut server) = (bot(&["192.0.2.9:1", SERVER]), server());
    let now = Timestamp::default();
    let checks = bot.poll(now);
    assert_eq!(checks.len(), 2);
    let (to, check) = &checks[1];
    let answer = server.handle(now, at("198.51.100.7:9"), check).expect("a signed check");
    assert_eq!(bot.handle(now, *to, &answer), None);
    assert_eq!(bot.selected(), Some(*to));
    let nominating = bot.poll(now);
    assert_eq!(nominating.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [*to]);
    let answer = server.handle(now, at("198.51.100.7:9"), &nominating[0].1).expect("a signed check");
    bot.handle(now, *to, &answer);
    assert!(bot.poll(now + Duration::from_secs(1)).is_empty());
    assert_eq!(bot.poll(now + CONSENT_EVERY).len(), 1);
    assert!(!bot.has_expired(now + CONSENT_EXPIRES) && bot.has_expired(now + CONSENT_EXPIRES + SEARCH_FIRST));
}

#[test]
fn what_is_not_signed_or_not_asked_for_is_nothing() {
    let mut bot = bot(&[SERVER]);
    let mut stranger = agent(Role::Controlled, "server", "bot", &[]);
    stranger.local.password = "another-password-entirely".to_owned();
    let now = Timestamp::default();
    let (to, check) = bot.poll(now).remove(0);
    let mut server = server();
    let answer = server.handle(now, to, &check).expect("a signed check");
    assert_eq!(stranger.handle(now, to, &check), None, "signed for somebody else");
    bot.handle(now, at("203.0.113.1:1"), &answer);
    assert_eq!(bot.selected(), None, "an answer from elsewhere");
    bot.handle(now, to, &answer[..answer.len() - 1]);
    assert_eq!(bot.selected(), None, "half an answer");
    bot.handle(now, to, &answer);
    assert_eq!(bot.selected(), Some(to));
}

#[test]
fn the_controlled_side_sends_only_where_its_own_check_was_answered() {
    let (mut bot, mut server) = (bot(&[SERVER]), server());
    let now = Timestamp::default();
    let (_, check) = bot.poll(now).remove(0);
    let forged = at("203.0.113.66:53");
    server.handle(now, forged, &check).expect("it is signed");
    let triggered = server.poll(now);
    assert_eq!(triggered.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [forged]);
    assert_eq!(server.selected(), None, "nobody there has answered");
    assert!(server.has_validated(forged) && !server.has_validated(at("203.0.113.67:53")));
    talk(now + Duration::from_millis(50), &mut bot, &mut server, "198.51.100.7:9");
    assert_eq!(server.selected(), Some(at("198.51.100.7:9")));
    let mut sent = 0;
    for millis in 0..60_000 {
        sent += server.poll(now + Duration::from_millis(millis)).iter().filter(|(to, _)| *to == forged).count();
    }
    assert!(sent <= SEARCH_TRIES as usize, "{sent} checks to somebody who never asked");
}

#[test]
fn a_nomination_of_another_pair_is_followed() {
    let (mut bot, mut server) = (bot(&[SERVER]), server());
    let now = Timestamp::default();
    talk(now, &mut bot, &mut server, "198.51.100.7:9");
    assert_eq!(server.selected(), Some(at("198.51.100.7:9")));
    let later = now + Duration::from_secs(8);
    talk(later, &mut bot, &mut server, "198.51.100.8:9");
    assert_eq!(server.selected(), Some(at("198.51.100.8:9")), "the bot has moved");
}

#[test]
fn a_restart_keeps_the_pair_until_the_next_is_found() {
    let (mut bot, mut server) = (bot(&[SERVER]), server());
    let now = Timestamp::default();
    talk(now, &mut bot, &mut server, "198.51.100.7:9");
    let old = bot.poll(now + CONSENT_EVERY).remove(0).1;
    server.restart(credentials("server2"), credentials("bot2"), now + CONSENT_EVERY);
    assert_eq!(server.handle(now + CONSENT_EVERY, at("198.51.100.7:9"), &old), None, "the old session's");
    assert_eq!(server.selected(), Some(at("198.51.100.7:9")));
    let mut bot = agent(Role::Controlling, "bot2", "server2", &[SERVER]);
    talk(now + Duration::from_secs(6), &mut bot, &mut server, "198.51.100.8:10");
    assert_eq!(server.selected(), Some(at("198.51.100.8:10")));
}

#[test]
fn of_two_in_the_same_role_one_takes_the_other() {
    for role in [Role::Controlling, Role::Controlled] {
        for (ours, theirs) in [(1, 2), (2, 1)] {
            let mut bot = agent(role, "bot", "server", &[SERVER]);
            let mut server = agent(role, "server", "bot", &[]);
            (bot.tie_breaker, server.tie_breaker) = (ours, theirs);
            let now = Timestamp::default();
            for millis in [0, 50, 100, 200] {
                talk(now + Duration::from_millis(millis), &mut bot, &mut server, "198.51.100.7:9");
            }
            // The larger tie-breaker controls.
            let expected = if ours > theirs { Role::Controlling } else { Role::Controlled };
            assert_eq!((bot.role, server.role == bot.role), (expected, false), "{role:?} {ours} {theirs}");
            assert_eq!(bot.selected(), Some(at(SERVER)), "{role:?} {ours} {theirs}");
            assert_eq!(server.selected(), Some(at("198.51.100.7:9")), "{role:?} {ours} {theirs}");
        }
    }
}

#[test]
fn consent_that_is_not_answered_is_asked_for_more_often() {
    let (mut bot, mut server) = (bot(&[SERVER]), server());
    let now = Timestamp::default();
    talk(now, &mut bot, &mut server, "198.51.100.7:9");
    let asked = |bot: &mut Agent, millis: u64| bot.poll(now + Duration::from_millis(millis)).len();
    assert_eq!([3_900, 4_000, 4_900, 5_000].map(|millis| asked(&mut bot, millis)), [0, 1, 0, 1]);
    let later = now + Duration::from_millis(6_000);
    talk(later, &mut bot, &mut server, "198.51.100.7:9");
    assert_eq!([7_000, 9_900, 10_000].map(|millis| asked(&mut bot, millis)), [0, 0, 1]);
}

#[test]
fn media_from_another_pair_moves_the_selection_once_the_selected_pair_is_silent() {
    let (mut bot, mut server) = (bot(&[SERVER]), server());
    let [first, other, strange] = ["198.51.100.7:9", "198.51.100.8:9", "198.51.100.9:9"];
    let after = |millis| Timestamp::default() + Duration::from_millis(millis);
    talk(after(10), &mut bot, &mut server, first);
    assert_eq!(server.selected(), Some(at(first)));
    let (from, to) = (credentials("bot"), credentials("server"));
    let unchosen =
        Check { role: Role::Controlling, tie_breaker: 1, priority: 1, nominates: false, from: &from, to: &to };
    let (_, unchosen) = check::request(&unchosen, &*bot.crypto).expect("can be signed");
    server.handle(after(20), at(other), &unchosen);
    server.arrived(after(1_000), at(first));
    let asked = |server: &mut Agent, millis, from: &str| {
        server.arrived(after(millis), at(from));
        server.poll(after(millis)).into_iter().find(|(to, _)| *to == at(from))
    };
    assert!(asked(&mut server, 1_200, other).is_none(), "the old one is not silent yet");
    assert!(asked(&mut server, 1_300, strange).is_none(), "a stranger is nobody");
    let (_, check) = asked(&mut server, 1_300, other).expect("whether it is wanted there");
    assert_eq!(server.selected(), Some(at(first)), "it has not answered");
    let answer = bot.handle(after(1_310), at(SERVER), &check).expect("one of ours");
    server.arrived(after(1_305), at(first));
    server.handle(after(1_310), at(other), &answer);
    assert_eq!(server.selected(), Some(at(first)), "the old one is back");
    let (_, check) = asked(&mut server, 1_600, other).expect("again");
    assert!(server.deadline() > after(1_600), "it waits for the answer");
    let answer = bot.handle(after(1_610), at(SERVER), &check).expect("one of ours");
    server.handle(after(1_610), at(other), &answer);
    assert_eq!(server.selected(), Some(at(other)));
    server.handle(after(1_700), at(strange), &unchosen);
    assert_eq!(server.selected(), Some(at(other)), "what was nominated before is over");
}

#[test]
fn who_has_chosen_once_and_gets_another_address_is_followed_when_the_old_one_falls_silent() {
    let (mut bot, mut server) = (bot(&[SERVER]), server());
    let mut now = Timestamp::default();
    talk(now, &mut bot, &mut server, "198.51.100.7:9");
    let moved = "198.51.100.8:9";
    while server.selected() != Some(at(moved)) && now < Timestamp::from_micros(30_000_000) {
        now = now + Duration::from_millis(250);
        let (from, to) = (credentials("bot"), credentials("server"));
        let consent =
            Check { role: Role::Controlling, tie_breaker: 1, priority: 1, nominates: false, from: &from, to: &to };
        let (_, consent) = check::request(&consent, &*bot.crypto).expect("can be signed");
        server.handle(now, at(moved), &consent);
        for (to, check) in server.poll(now) {
            let answer = bot.handle(now, at(SERVER), &check).filter(|_| to == at(moved));
            answer.and_then(|answer| server.handle(now, to, &answer));
        }
    }
    assert_eq!(server.selected(), Some(at(moved)));
    assert!(now.since(Timestamp::default()) < Duration::from_secs(10), "{now:?}");
    assert!(!server.has_expired(now));
}

#[test]
fn candidate_pairs_are_capped_and_the_selected_one_stays() {
    let (mut bot, mut server) = (bot(&[SERVER]), server());
    let now = Timestamp::default();
    talk(now, &mut bot, &mut server, "198.51.100.7:9");
    for port in 1..200 {
        server.add_candidate(SocketAddr::from(([192, 0, 2, 3], port)), now);
    }
    assert_eq!(server.pairs.len(), PAIRS_MAX);
    assert!(server.has_validated(at("198.51.100.7:9")));
    assert!(server.poll(now).is_empty(), "nothing more is looked for");
}

/// Checks that the agent sends within a minute.
fn sent(agent: &mut Agent, from: Timestamp) -> usize {
    (0..60_000).map(|millis| agent.poll(from + Duration::from_millis(millis)).len()).sum()
}

/// The fault that began this: joins and ICE restarts sent several times as many packets to a third party as they cost.
#[test]
fn checks_to_candidates_that_never_answer_are_bounded_over_a_session() {
    let victims: Vec<String> = (1..=PAIRS_MAX).map(|port| format!("203.0.113.66:{port}")).collect();
    let victims: Vec<&str> = victims.iter().map(String::as_str).collect();
    let mut server = agent(Role::Controlled, "server", "bot", &victims);
    let mut now = Timestamp::default();
    assert_eq!(sent(&mut server, now), UNANSWERED_MAX as usize + 29, "one more every two seconds");
    now = now + Duration::from_secs(60);
    let mut restarted = 0;
    for number in 0..100 {
        server.restart(credentials(&format!("server{number}")), credentials("bot"), now);
        victims.iter().for_each(|victim| server.add_candidate(at(victim), now));
        for _ in 0..10 {
            restarted += server.poll(now).len();
            now = now + Duration::from_millis(50);
        }
    }
    assert!(restarted <= 26, "{restarted} checks in 50 s of restarts");
}

#[test]
fn a_forged_request_causes_at_most_one_check() {
    let (mut bot, mut server) = (bot(&[SERVER]), server());
    let mut now = Timestamp::default();
    sent(&mut server, now);
    now = now + Duration::from_secs(60);
    while server.budget.take() {}
    let mut checks = 0;
    for port in 1..=500 {
        let (from, to) = (credentials("bot"), credentials("server"));
        let check =
            Check { role: Role::Controlling, tie_breaker: 1, priority: 1, nominates: true, from: &from, to: &to };
        let (_, request) = check::request(&check, &*bot.crypto).expect("can be signed");
        server.handle(now, SocketAddr::from(([203, 0, 113, 66], port)), &request);
        checks += server.poll(now).len();
    }
    assert!(checks <= 500, "{checks}");
    talk(now, &mut bot, &mut server, "198.51.100.7:9");
    assert_eq!(server.selected(), Some(at("198.51.100.7:9")), "the session's client still connects at once");
}

#[test]
fn candidates_that_never_answer_do_not_delay_the_client_that_does() {
    let dead: Vec<String> = (1..PAIRS_MAX).map(|port| format!("203.0.113.66:{port}")).collect();
    let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
    let (mut bot, mut server) = (bot(&[SERVER]), agent(Role::Controlled, "server", "bot", &dead));
    let mut now = Timestamp::default();
    for _ in 0..20 {
        server.poll(now);
        now = now + Duration::from_millis(50);
    }
    server.poll(now);
    assert_eq!(server.budget.left, 0);
    assert!(server.deadline() > now, "it does not spin");
    talk(now, &mut bot, &mut server, "198.51.100.7:9");
    assert_eq!(server.selected(), Some(at("198.51.100.7:9")));
}
