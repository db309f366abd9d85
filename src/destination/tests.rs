//! URLs of every scheme, disguised hosts, redaction, and the guard.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECRET: &str = "s3cr3t-of-many-letters";

fn output(text: &str) -> Destination {
    Destination::output(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn input(text: &str) -> Destination {
    Destination::input(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn rtmp(text: &str) -> Rtmp {
    match output(text).target() {
        Target::Rtmp(rtmp) => rtmp.clone(),
        other => panic!("{text} is {other}"),
    }
}

fn srt(text: &str) -> Srt {
    match output(text).target() {
        Target::Srt(srt) => srt.clone(),
        other => panic!("{text} is {other}"),
    }
}

#[test]
fn rtmp_urls_of_the_platforms_are_parsed() {
    for (text, tc_url, port, key) in [
        ("rtmp://a.rtmp.youtube.com/live2/abcd-efgh", "rtmp://a.rtmp.youtube.com/live2", 1935, "abcd-efgh"),
        ("rtmps://a.rtmps.youtube.com:443/live2/k", "rtmps://a.rtmps.youtube.com/live2", 443, "k"),
        (
            "rtmp://live.twitch.tv/app/live_1?bandwidthtest=true",
            "rtmp://live.twitch.tv/app",
            1935,
            "live_1?bandwidthtest=true",
        ),
        (
            "rtmps://live-api-s.facebook.com:443/rtmp/FB-1-0-x?s_bl=1&s_ps=1",
            "rtmps://live-api-s.facebook.com/rtmp",
            443,
            "FB-1-0-x?s_bl=1&s_ps=1",
        ),
        ("RTMP://Host.Example:80/app/instance/key", "rtmp://host.example:80/app/instance", 80, "key"),
        ("rtmp://[2001:db8::1]:1936/app/key", "rtmp://[2001:db8::1]:1936/app", 1936, "key"),
    ] {
        let rtmp = rtmp(text);
        assert_eq!((rtmp.tc_url().as_str(), rtmp.endpoint.port, rtmp.key.expose()), (tc_url, port, key), "{text}");
        assert_eq!(output(text).redacted(), format!("{tc_url}/…"));
    }
}

#[test]
fn rtmp_urls_may_have_their_key_in_the_query_or_no_key() {
    for (text, app, key, shown) in [
        ("rtmp://h.example/app/?streamname=a&key=b", "app", "?streamname=a&key=b", "app/…"),
        ("rtmp://h.example/app/inst/?key=b/c", "app/inst", "?key=b/c", "app/inst/…"),
        ("rtmp://h.example/app/name?sign=a/b", "app", "name?sign=a/b", "app/…"),
        ("rtmp://h.example/stream", "stream", "", "…"),
        ("rtmp://h.example/stream?token=t", "stream", "?token=t", "stream/…"),
        ("rtmp://h.example/app?vhost=a&auth=s/key", "app?vhost=a&auth=s", "key", "app/…"),
        ("rtmp://h.example/app/a+b%2F=", "app", "a+b%2F=", "app/…"),
    ] {
        for rtmp in [
            rtmp(text),
            match input(text).target() {
                Target::Rtmp(rtmp) => rtmp.clone(),
                other => panic!("{text} is {other}"),
            },
        ] {
            assert_eq!((rtmp.app.expose(), rtmp.key.expose()), (app, key), "{text}");
        }
        assert_eq!(rtmp(text).tc_url(), format!("rtmp://h.example/{app}"));
        assert_eq!(output(text).redacted(), format!("rtmp://h.example/{shown}"));
    }
    for text in ["rtmp://h.example", "rtmp://h.example/", "rtmp://h.example/?key=a", "rtmp://h.example/app?x=y/"] {
        assert_eq!(Destination::output(text), Err(DestinationError::StreamKey), "{text}");
    }
}

#[test]
fn srt_parameters_are_percent_encoded_and_not_a_form() {
    for (parameters, passphrase, stream_id) in [
        ("passphrase=a+b+c+d+e+f", "a+b+c+d+e+f", None),
        ("passphrase=a%2Bb%20c%25d=efg", "a+b c%d=efg", None),
        ("passphrase=100%+sure-it-is", "100%+sure-it-is", None),
        (
            "passphrase=0123456789&streamid=#!::r=live/cam,m=request,u=ann",
            "0123456789",
            Some("#!::r=live/cam,m=request,u=ann"),
        ),
        ("passphrase=#123456789&streamid=%23!::r=a+b", "#123456789", Some("#!::r=a+b")),
        (
            "streamid=publish:cam:user:pa%26ss&passphrase=0123456789&pkt_size=1316",
            "0123456789",
            Some("publish:cam:user:pa&ss"),
        ),
        ("transtype=live&passphrase=p%C3%A4ssw%C3%B6rter", "pässwörter", None),
    ] {
        for srt in ["srt://h.example:9000", "srt://h.example:9000/"].map(|host| srt(&format!("{host}?{parameters}"))) {
            assert_eq!(srt.passphrase.as_ref().map(Secret::expose), Some(passphrase), "{parameters}");
            assert_eq!(srt.stream_id.as_ref().map(Secret::expose), stream_id, "{parameters}");
        }
    }
    assert_eq!(Destination::output("srt://h.example:9000#!::r=a"), Err(DestinationError::Fragment));
    assert_eq!(Destination::output("srt://h.example:9000?transtype=file"), Err(DestinationError::SrtParameter));
}

#[test]
fn a_character_that_ends_the_host_is_named_where_it_is_in_a_password() {
    for (text, character) in [
        ("rtsp://ann:pa#ss@cam.example/1", '#'),
        ("rtsp://ann:#1@cam.example/1", '#'),
        ("rtsp://ann:1#2@cam.example/1", '#'),
        ("rtsp://ann:pa/ss@cam.example/1", '/'),
        ("rtsp://ann:pa?s#s@cam.example/1", '?'),
        ("https://ann:pa#ss@web.example/x.m3u8", '#'),
    ] {
        let error = Destination::input(text).expect_err(text);
        assert!(
            matches!(error, DestinationError::UserInfoCharacter { character: c, .. } if c == character),
            "{text}: {error}"
        );
        assert!(!error.to_string().contains("ann"), "{error}");
    }
    for (text, error) in [
        ("rtsp://cam.example/1#top", DestinationError::Fragment),
        ("rtsp://cam.example:99999/a@b", DestinationError::Port("")),
    ] {
        let actual = Destination::input(text).expect_err(text);
        assert_eq!(std::mem::discriminant(&actual), std::mem::discriminant(&error), "{text}: {actual}");
    }
    for text in ["rtsp://ann:pa%23ss@cam.example/1", "rtsp://ann:p@ss@cam.example/1", "rtsp://cam.example:554/a@b"] {
        input(text);
    }
}

#[test]
fn srt_urls_give_mode_and_parameters() {
    let caller =
        srt("srt://live.example:9000?streamid=%23!::r=a,m=publish&latency=300&passphrase=0123456789&pbkeylen=32");
    assert_eq!(caller.mode, SrtMode::Caller(Endpoint { host: Host::Name("live.example".into()), port: 9000 }));
    assert_eq!((caller.latency, caller.key_length), (Duration::from_millis(300), 32));
    assert_eq!(caller.stream_id.as_ref().map(Secret::expose), Some("#!::r=a,m=publish"));
    assert_eq!(caller.to_string(), "srt://live.example:9000?mode=caller&latency=300&passphrase=…&streamid=…");
    for (text, address) in [
        ("srt://:9000?mode=listener", "0.0.0.0:9000"),
        ("srt://[::]:9000?mode=listener", "[::]:9000"),
        ("SRT://127.0.0.1:9000?mode=listener", "127.0.0.1:9000"),
    ] {
        let listener = output(text);
        assert_eq!(listener.endpoint(), None);
        let address: SocketAddr = address.parse().expect("an address");
        assert!(matches!(listener.target(), Target::Srt(srt) if srt.mode == SrtMode::Listener(address)), "{text}");
    }
    for (text, error) in [
        ("srt://host", DestinationError::Port("")),
        ("srt://:9000", DestinationError::Host("")),
        ("srt://name:9000?mode=listener", DestinationError::Host("")),
        ("srt://h:1?mode=rendezvous", DestinationError::SrtMode),
        ("srt://h:1?mode=caller&mode=caller", DestinationError::SrtParameter),
        ("srt://h:1?passphrase=short", DestinationError::SrtPassphrase),
        ("srt://h:1?passphrase=", DestinationError::SrtPassphrase),
        ("srt://h:1?pbkeylen=16", DestinationError::SrtPassphrase),
        ("srt://h:1?latency=9000", DestinationError::SrtLatency),
        ("srt://h:1?linger=1", DestinationError::SrtParameter),
        ("srt://h:1/path", DestinationError::NotAUrl("")),
    ] {
        let actual = Destination::output(text).expect_err(text);
        assert_eq!(std::mem::discriminant(&actual), std::mem::discriminant(&error), "{text}: {actual}");
    }
}

#[test]
fn outputs_and_inputs_support_different_schemes() {
    let host = "h.example";
    for (text, out, inn) in [
        (format!("rtmp://{host}/a/k"), true, true),
        (format!("rtmps://{host}/a/k"), true, true),
        (format!("srt://{host}:1"), true, true),
        (format!("whip+https://{host}/x"), true, false),
        (format!("whip+http://{host}/x"), true, false),
        (format!("rtp://{host}:5004"), true, false),
        (format!("whep+https://{host}/x"), false, true),
        (format!("whep+http://{host}/x"), false, true),
        (format!("rtsp://user:pass@{host}/x"), false, true),
        (format!("https://{host}/x.m3u8"), false, true),
        (format!("http://user:pass@{host}/x"), false, true),
        ("file:clip one.mp4".into(), false, true),
        ("file:///etc/passwd".into(), false, false),
        (format!("ftp://{host}/x"), false, false),
        (format!("javascript:alert({host})"), false, false),
        (format!("gopher://{host}/x"), false, false),
        ("data:text/plain,x".into(), false, false),
        (host.into(), false, false),
        (String::new(), false, false),
    ] {
        assert_eq!(Destination::output(&text).is_ok(), out, "output {text}");
        assert_eq!(Destination::input(&text).is_ok(), inn, "input {text}");
        let mixed: String = text.split_once(':').map_or_else(
            || text.clone(),
            |(scheme, rest)| {
                let scheme: String =
                    scheme.char_indices().map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
                format!("{scheme}:{rest}")
            },
        );
        assert_eq!(Destination::output(&mixed).is_ok(), out, "output {mixed}");
        assert_eq!(Destination::input(&mixed).is_ok(), inn, "input {mixed}");
    }
}

#[test]
fn disguised_hosts_are_normalized_and_malformed_urls_are_refused() {
    let loopback = Host::Address(Ipv4Addr::LOCALHOST.into());
    for host in
        ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "0x7f.1", "%31%32%37.0.0.1"]
    {
        for text in [format!("whip+http://{host}:80/x"), format!("rtmp://{host}:80/a/k"), format!("srt://{host}:80")] {
            let endpoint = output(&text).endpoint().cloned();
            assert_eq!(endpoint, Some(Endpoint { host: loopback.clone(), port: 80 }), "{text}");
        }
    }
    let mapped = output("whip+http://[::ffff:169.254.169.254]/");
    let Some(Endpoint { host: Host::Address(address), .. }) = mapped.endpoint() else { panic!("an address") };
    assert!(matches!(Guard::default().check(*address), Err(GuardError::Address { kind: AddressKind::Metadata, .. })));
    for text in [
        "rtmp:///app/key",
        "rtmp://:1935/app/key",
        "rtmp://host:0/app/key",
        "rtmp://host:65536/app/key",
        "rtmp://host",
        "rtmp://host/app/",
        "rtmp://host//key",
        "rtmp://user@host/app/key",
        "rtmp://good.example@127.0.0.1/app/key",
        "rtmp://host/app/key#part",
        "rtmp://ho st/app/key",
        "rtmp://ho\nst/app/key",
        "rtmp://[fe80::1%25eth0]/app/key",
        "rtmp://[fe80::1%eth0]/app/key",
        "rtmp://300.1.1.1/app/key",
        "rtmp://ho\\st/app/key",
        "whip+https://",
        "whip+https://user:pass@host/x",
        "whip+ftp://host/x",
        "rtp://host",
        "rtp://host:0",
        "rtp://host:65533",
        "rtp://host:5004/path",
    ] {
        assert!(Destination::output(text).is_err(), "{text}");
    }
    let long = format!("rtmp://host/app/{}", "k".repeat(URL_MAX));
    assert_eq!(Destination::output(&long), Err(DestinationError::TooLong));
}

#[test]
fn file_inputs_are_names_without_a_path() {
    assert_eq!(input("file:Clip 1_a-b.mp4").target(), &Target::File("Clip 1_a-b.mp4".into()));
    for name in [
        "",
        ".",
        "..",
        ".hidden",
        "../x",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "//host/x",
        "a%2fb",
        "a\0b",
        "a\nb",
        "-x",
        " x",
    ] {
        assert!(Destination::input(&format!("file:{name}")).is_err(), "{name:?}");
    }
}

#[test]
fn rtsp_urls_can_be_pinned_to_the_checked_address() {
    let Target::Rtsp(rtsp) = input("rtsp://us%40er:p%3ass@cam.example/a?b=c").target().clone() else { panic!("rtsp") };
    let (user, password) = rtsp.login.as_ref().expect("written");
    assert_eq!((user.expose(), password.expose()), ("us@er", "p:ss"));
    assert_eq!(rtsp.url_at(Ipv6Addr::LOCALHOST.into()).expose(), "rtsp://[::1]:554/a?b=c");
}

#[test]
fn only_the_secret_form_contains_secrets() {
    let token = || Secret::from(SECRET.to_owned());
    for destination in [
        output(&format!("rtmp://host/app/{SECRET}?a={SECRET}")),
        output(&format!("rtmp://host/app/?key={SECRET}")),
        output(&format!("rtmp://host/app?auth={SECRET}/{SECRET}")),
        output(&format!("rtmp://host/{SECRET}")),
        output(&format!("srt://host:1?passphrase={SECRET}&streamid={SECRET}")),
        output(&format!("whip+https://host/{SECRET}?{SECRET}")).with_token(token()).expect("takes one"),
        input(&format!("whep+https://host/{SECRET}")).with_token(token()).expect("takes one"),
        input(&format!("rtsp://{SECRET}:{SECRET}@host/{SECRET}?{SECRET}")),
        input(&format!("https://{SECRET}:{SECRET}@host/{SECRET}?{SECRET}")),
    ] {
        let json = serde_json::to_string(&destination).expect("a text");
        let form = destination.secret_form();
        for shown in [destination.to_string(), destination.redacted(), format!("{destination:?}"), json] {
            assert!(!shown.contains(SECRET) && shown.contains("host"), "{shown}");
        }
        assert!(!format!("{form:?} {:?}", destination.target()).contains(SECRET));
        let across =
            postcard::from_bytes::<SecretForm>(&postcard::to_stdvec(&form).expect("plain data")).expect("whole");
        assert_eq!(across.open(), Ok(destination));
    }
    assert_eq!(output("rtmp://host/app/key").with_token(token()), Err(DestinationError::Token));
    for token in ["", "two words", "line\r\nX-Header: 1"] {
        let whip = output("whip+https://host/x");
        assert_eq!(whip.with_token(Secret::from(token.to_owned())), Err(DestinationError::Token));
    }
}

fn refused_kind(address: &str) -> Option<AddressKind> {
    match Guard::default().check(address.parse().expect("an address")) {
        Ok(()) => None,
        Err(GuardError::Address { kind, .. }) => Some(kind),
        Err(GuardError::NoAddress) => panic!("an address was given"),
    }
}

#[test]
fn special_addresses_are_refused_by_kind() {
    for (address, kind) in [
        ("1.1.1.1", None),
        ("172.32.0.1", None),
        ("100.128.0.1", None),
        ("2606:4700::1111", None),
        ("64:ff9b::101:101", None),
        ("::ffff:1.1.1.1", None),
        ("127.0.0.1", Some(AddressKind::Loopback)),
        ("127.255.0.9", Some(AddressKind::Loopback)),
        ("::1", Some(AddressKind::Loopback)),
        ("::ffff:127.0.0.1", Some(AddressKind::Loopback)),
        ("64:ff9b::7f00:1", Some(AddressKind::Loopback)),
        ("2002:7f00:1::", Some(AddressKind::Loopback)),
        ("::127.0.0.1", Some(AddressKind::Loopback)),
        ("10.0.0.1", Some(AddressKind::Private)),
        ("172.16.0.1", Some(AddressKind::Private)),
        ("192.168.1.1", Some(AddressKind::Private)),
        ("100.64.0.1", Some(AddressKind::Private)),
        ("fd12::1", Some(AddressKind::Private)),
        ("fec0::1", Some(AddressKind::Private)),
        ("64:ff9b:1::1", Some(AddressKind::Private)),
        ("169.254.1.1", Some(AddressKind::LinkLocal)),
        ("fe80::1", Some(AddressKind::LinkLocal)),
        ("169.254.169.254", Some(AddressKind::Metadata)),
        ("::ffff:169.254.169.254", Some(AddressKind::Metadata)),
        ("64:ff9b::a9fe:a9fe", Some(AddressKind::Metadata)),
        ("fd00:ec2::254", Some(AddressKind::Metadata)),
        ("100.100.100.200", Some(AddressKind::Metadata)),
        ("168.63.129.16", Some(AddressKind::Metadata)),
        ("224.0.0.1", Some(AddressKind::Multicast)),
        ("ff02::1", Some(AddressKind::Multicast)),
        ("0.0.0.0", Some(AddressKind::Unspecified)),
        ("::", Some(AddressKind::Unspecified)),
        ("0.1.2.3", Some(AddressKind::Reserved)),
        ("192.0.2.1", Some(AddressKind::Reserved)),
        ("198.18.0.1", Some(AddressKind::Reserved)),
        ("203.0.113.1", Some(AddressKind::Reserved)),
        ("255.255.255.255", Some(AddressKind::Reserved)),
        ("2001:db8::1", Some(AddressKind::Reserved)),
        ("2001::1", Some(AddressKind::Reserved)),
        ("3fff::1", Some(AddressKind::Reserved)),
        ("4000::1", Some(AddressKind::Reserved)),
    ] {
        assert_eq!(refused_kind(address), kind, "{address}");
    }
}

#[test]
fn the_configuration_allows_private_and_listed_networks() {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let open = Guard { allow_private: true, allow: Vec::new() };
    for (text, allowed) in [
        ("127.0.0.1", true),
        ("::ffff:10.0.0.1", true),
        ("fd12::1", true),
        ("169.254.169.254", false),
        ("fd00:ec2::254", false),
        ("169.254.0.1", false),
        ("224.0.0.1", false),
        ("0.0.0.0", false),
        ("192.0.2.1", false),
    ] {
        assert_eq!(open.check(address(text)).is_ok(), allowed, "{text}");
    }
    let listed = Guard {
        allow_private: false,
        allow: ["10.1.0.0/16", "239.0.0.0/8", "fd12::/16"].map(|text| text.parse().expect("a network")).into(),
    };
    for (text, allowed) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("10.2.0.1", false),
        ("239.1.1.1", true),
        ("fd12::5", true),
        ("fd13::5", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(listed.check(address(text)).is_ok(), allowed, "{text}");
    }
    let refused = listed.choose(&[address("1.1.1.1"), address("::ffff:127.0.0.1")]).expect_err("one is bad");
    let text = refused.to_string();
    assert!(text.contains("127.0.0.1/32") && text.contains("allow_private") && text.contains("[outputs]"), "{text}");
    assert_eq!(listed.choose(&[address("::ffff:1.1.1.1"), address("10.1.0.1")]), Ok(address("1.1.1.1")));
    assert_eq!(listed.choose(&[]), Err(GuardError::NoAddress));
    for text in ["10.1.0.0", "10.1.0.0/33", "name/8", ""] {
        assert!(text.parse::<Network>().is_err(), "{text}");
    }
}

proptest! {
    /// No text panics, and an accepted URL is restored from its secret form.
    #[test]
    fn arbitrary_text_is_refused_or_restored(
        text in "(rtmp|rtmps|srt|rtp|rtsp|http|whip\\+https|whep\\+http|file|x)?:?(//)?\\PC{0,40}",
    ) {
        for destination in [Destination::output(&text), Destination::input(&text)].into_iter().flatten() {
            prop_assert_eq!(destination.secret_form().open(), Ok(destination.clone()));
            if let Some(endpoint) = destination.endpoint() {
                prop_assert!(endpoint.port != 0 && !endpoint.host.to_string().is_empty());
            }
        }
    }

    /// An IPv4 address embedded in IPv6 is judged like the IPv4 address.
    #[test]
    fn embedded_ipv4_is_judged_like_ipv4(
        bits in any::<u32>(),
        special in any::<bool>(),
        allow_private in any::<bool>(),
    ) {
        let address = Ipv4Addr::from(if special { 0xa9fe_0000 | (bits & 0xffff) } else { bits });
        let guard = Guard { allow_private, allow: Vec::new() };
        let alone = guard.check(address.into());
        let [high, low] = [(u32::from(address) >> 16) as u16, u32::from(address) as u16];
        let mut wrapped = vec![
            address.to_ipv6_mapped(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 1, 2, 3, 4, 5),
        ];
        if high != 0 {
            wrapped.push(Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low));
        }
        for wrapped in wrapped {
            prop_assert_eq!(guard.check(wrapped.into()), alone, "{}", wrapped);
        }
    }

    /// The chosen address is one of the given ones; if one of them is refused, none is chosen.
    #[test]
    fn one_refused_address_refuses_the_name(bits in prop::collection::vec((any::<u128>(), any::<bool>()), 0..6)) {
        let addresses: Vec<IpAddr> = bits.into_iter().map(|(bits, v6)| {
            if v6 { Ipv6Addr::from(bits).into() } else { Ipv4Addr::from(bits as u32).into() }
        }).collect();
        let guard = Guard::default();
        let all = addresses.iter().all(|address| guard.check(*address).is_ok());
        match guard.choose(&addresses) {
            Ok(chosen) => prop_assert!(all && addresses.iter().any(|address| address.to_canonical() == chosen)),
            Err(_) => prop_assert!(!all || addresses.is_empty()),
        }
    }
}
