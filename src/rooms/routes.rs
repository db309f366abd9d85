//! Routes of a room's media: which subscribers and outputs get the packets of each stream.
//!
//! Owns: [`RouteTable`], which the link's reader walks for each packet of the mixer, replaced whole; [`Router`], which
//! derives it from the room's routes and the streams that subscribers select, and counts subscribers by stream for the
//! room; [`FanOut`], what streams have sent lately. Does not know: how a subscriber sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::fanout::{Contributors, Demand, GopCache, Names, Subscriber};
use crate::id::{OutputId, ParticipantId};
use crate::link::AudioTick;
use crate::link::output::ToOutput;
use crate::media::{EncodedPacket, StreamKey};
use crate::plan::StreamSet;
use crate::process::OutputLink;
use crate::room::document::TierChoice;
use crate::room::{OutputRoute, Route, StreamDemand};
use crate::tier::Costs;
use crate::time::Timestamp;

/// The receivers of each stream.
#[derive(Default)]
pub(super) struct RouteTable {
    video: BTreeMap<u32, Vec<Arc<Subscriber>>>,
    audio: Vec<(ParticipantId, Arc<Subscriber>)>,
    /// By stream serial: outputs, each with the number that the stream has there.
    output_video: BTreeMap<u32, Vec<(u8, Arc<OutputLink>)>>,
    output_sound: Vec<Arc<OutputLink>>,
}

impl RouteTable {
    /// Adds the streams of an output.
    fn add_output(&mut self, route: &OutputRoute, to: &Arc<OutputLink>) {
        for (stream, serial) in (0..).zip(&route.streams) {
            self.output_video.entry(*serial).or_default().push((stream, to.clone()));
        }
        if route.sound {
            self.output_sound.push(to.clone());
        }
    }
}

/// The routes of one room, on the side of its task.
pub(super) struct Router {
    table: Arc<ArcSwap<RouteTable>>,
    demand: Arc<Demand>,
    costs: Costs,
    subscribers: BTreeMap<ParticipantId, Arc<Subscriber>>,
    routes: Vec<Route>,
    output_routes: Vec<OutputRoute>,
    /// The streams that are encoded.
    serials: BTreeMap<StreamKey, u32>,
    /// The counts that the room has.
    counted: BTreeMap<StreamKey, usize>,
    /// The table must be derived anew.
    stale: bool,
}

impl Router {
    /// No routes; subscribers select tiers by these bitrates.
    pub(super) fn new(costs: Costs) -> Self {
        Self {
            table: Arc::default(),
            demand: Arc::default(),
            costs,
            subscribers: BTreeMap::new(),
            routes: Vec::new(),
            output_routes: Vec::new(),
            serials: BTreeMap::new(),
            counted: BTreeMap::new(),
            stale: false,
        }
    }

    /// The table for the link's reader.
    pub(super) fn table(&self) -> Arc<ArcSwap<RouteTable>> {
        self.table.clone()
    }

    /// Where subscribers report their demand.
    pub(super) fn demand(&self) -> Arc<Demand> {
        self.demand.clone()
    }

    /// Adds the subscriber of a participant whose connection is set up.
    pub(super) fn attach(&mut self, participant: ParticipantId, subscriber: Arc<Subscriber>, now: Timestamp) {
        subscriber.attach(participant, self.demand.clone(), self.costs, now);
        if let Some(route) = self.routes.iter().find(|route| route.participant == participant) {
            assign(&subscriber, route, now);
        }
        self.subscribers.insert(participant, subscriber);
        self.stale = true;
    }

    /// Removes the subscriber of a participant.
    pub(super) fn detach(&mut self, participant: ParticipantId) {
        self.stale |= self.subscribers.remove(&participant).is_some();
    }

    /// Sets what the room assigns to its participants.
    pub(super) fn set_routes(&mut self, routes: Vec<Route>, now: Timestamp) {
        self.routes = routes;
        for route in &self.routes {
            if let Some(subscriber) = self.subscribers.get(&route.participant) {
                assign(subscriber, route, now);
            }
        }
        self.stale = true;
    }

    /// Sets what the room assigns to its outputs.
    pub(super) fn set_output_routes(&mut self, routes: Vec<OutputRoute>) {
        self.output_routes = routes;
        self.stale = true;
    }

    /// What the room assigns to its outputs.
    pub(super) fn output_routes(&self) -> &[OutputRoute] {
        &self.output_routes
    }

    /// The process of an output has been started.
    pub(super) fn output_changed(&mut self) {
        self.stale = true;
    }

    /// Sets the streams that the mixer encodes.
    pub(super) fn set_streams(&mut self, set: &StreamSet) {
        self.serials = set.streams.iter().map(|spec| (spec.key.clone(), spec.serial)).collect();
        self.stale = true;
    }

    /// The demand of the subscribers, if the room does not have it yet.
    pub(super) fn poll_demand(&mut self) -> Option<StreamDemand> {
        let demanded = self.demand.take();
        self.stale |= !demanded.selections.is_empty();
        let subscribers = if self.stale { self.count() } else { self.counted.clone() };
        let selection = |participant| {
            let selection = self.subscribers.get(&participant)?.selection()?;
            Some((participant, selection.tier, selection.limit))
        };
        let selections: Vec<_> = demanded.selections.into_iter().filter_map(selection).collect();
        let keyframes: Vec<u32> = demanded.keyframes.into_iter().collect();
        if selections.is_empty() && keyframes.is_empty() && subscribers == self.counted {
            return None;
        }
        self.counted.clone_from(&subscribers);
        Some(StreamDemand { subscribers, selections, keyframes })
    }

    /// Replaces the table if something has changed, and returns true then. `output` finds the link of an output.
    pub(super) fn publish(&mut self, output: impl Fn(OutputId) -> Option<Arc<OutputLink>>) -> bool {
        if !std::mem::take(&mut self.stale) {
            return false;
        }
        let mut table = RouteTable::default();
        for (route, subscriber) in self.routed() {
            let selected = subscriber.selected().and_then(|key| self.serials.get(&key).copied());
            selected.into_iter().for_each(|serial| subscriber.want(serial));
            let flowing = self.flowing(subscriber).map(|(_, serial)| serial);
            for serial in selected.into_iter().chain(flowing.filter(|flowing| selected != Some(*flowing))) {
                table.video.entry(serial).or_default().push(subscriber.clone());
            }
            if route.audio {
                table.audio.push((route.participant, subscriber.clone()));
            }
        }
        for route in &self.output_routes {
            if let Some(link) = output(route.output) {
                table.add_output(route, &link);
            }
        }
        self.table.store(Arc::new(table));
        true
    }

    /// Every stream that a subscriber needs, with the number of subscribers that have selected it.
    fn count(&self) -> BTreeMap<StreamKey, usize> {
        let mut counts = BTreeMap::new();
        for (_, subscriber) in self.routed() {
            let Some(selected) = subscriber.selected() else { continue };
            if let Some((flowing, _)) = self.flowing(subscriber) {
                counts.entry(flowing.clone()).or_default();
            }
            *counts.entry(selected).or_default() += 1;
        }
        counts
    }

    fn routed(&self) -> impl Iterator<Item = (&Route, &Arc<Subscriber>)> {
        self.routes.iter().filter_map(|route| Some((route, self.subscribers.get(&route.participant)?)))
    }

    /// The stream that flows to a subscriber.
    fn flowing(&self, subscriber: &Subscriber) -> Option<(&StreamKey, u32)> {
        let flowing = subscriber.flowing()?;
        self.serials.iter().find(|(_, serial)| **serial == flowing).map(|(key, serial)| (key, *serial))
    }
}

fn assign(subscriber: &Subscriber, route: &Route, now: Timestamp) {
    let pinned = match route.tier {
        TierChoice::Auto => None,
        TierChoice::Pinned(tier) => Some(tier),
    };
    subscriber.assign(route.video.clone(), pinned, now);
}

/// Distributes the mixer's media to subscribers and outputs, on the link's reader.
pub(super) struct FanOut {
    routes: Arc<ArcSwap<RouteTable>>,
    /// CNAMEs of contributors.
    names: Names,
    recent: BTreeMap<u32, GopCache>,
}

impl FanOut {
    pub(super) fn new(routes: Arc<ArcSwap<RouteTable>>, names: Names) -> Self {
        Self { routes, names, recent: BTreeMap::new() }
    }

    pub(super) fn video(&mut self, serial: u32, packet: &EncodedPacket, now: Timestamp) {
        let routes = self.routes.load();
        if packet.starts_keyframe {
            self.recent.retain(|serial, _| routes.video.contains_key(serial));
        }
        let recent = self.recent.entry(serial).or_default();
        recent.push(packet);
        for subscriber in routes.video.get(&serial).into_iter().flatten() {
            subscriber.push_video(serial, packet, recent, now);
        }
        for (stream, output) in routes.output_video.get(&serial).into_iter().flatten() {
            output.send(ToOutput::Video { stream: *stream, packet: packet.clone() });
        }
    }

    pub(super) fn audio(&self, tick: &AudioTick) {
        let routes = self.routes.load();
        let shared = [&tick.heard, &tick.heard_thin].map(|heard| Contributors::of(heard, None, &self.names));
        for (participant, subscriber) in &routes.audio {
            let Some(packet) = tick.packet_for(*participant) else { continue };
            let heard = tick.heard_by(*participant);
            // Silent listeners are in no list, so that all of them share one.
            if heard.iter().any(|(talker, _)| talker == participant) {
                subscriber.push_audio(packet, &Contributors::of(heard, Some(*participant), &self.names));
            } else {
                subscriber.push_audio(packet, &shared[usize::from(std::ptr::eq(heard, tick.heard_thin.as_slice()))]);
            }
        }
        if let Some(packet) = &tick.everyone {
            routes.output_sound.iter().for_each(|output| output.send(ToOutput::Sound(packet.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::layout::Layout;
    use crate::media::{Codec, Size, SoundTaken, SourceKind, Tier};
    use crate::room::document::{ParticipantPatch, Role};
    use crate::room::moderation::Changer;
    use crate::room::view_request::ViewPatch;
    use crate::room::{Admission, Effect, Input, Order, Room, RoomSettings};
    use crate::tier::{Ladder, Limit, Reception};

    const CONGESTED: Reception = Reception {
        lost: 0.0,
        queue: Some(Duration::from_millis(500)),
        queue_now: None,
        backlog: Duration::ZERO,
        delivered: None,
        capacity: Some(250_000),
        estimate: None,
    };

    /// A room and the routes of its participants, without processes and connections.
    struct Routed {
        room: Room,
        router: Router,
        fan_out: FanOut,
        now: Timestamp,
        keyframes: Vec<u32>,
        inputs: usize,
    }

    impl Routed {
        fn new() -> Self {
            let ladder = Ladder::default();
            let settings = RoomSettings {
                filters: Arc::default(),
                name: "test".parse().expect("a name"),
                layout: Layout::default(),
                canvas: Size::new(1280, 720),
                fps: 30,
                ladder,
                max_participants: 9,
                max_viewers: 2_000,
                max_outputs: 3,
                max_inputs: 2,
                direct_for_two: false,
                linger: Duration::from_secs(5),
                permanent: false,
                chat_history: 200,
            };
            let now = Timestamp::from_micros(1_000_000_000);
            let router = Router::new(ladder.costs());
            let fan_out = FanOut::new(router.table(), Names::default());
            Self { room: Room::new(settings, now), router, fan_out, now, keyframes: Vec::new(), inputs: 0 }
        }

        /// Carries out effects and demand as a room's task does.
        fn settle(&mut self) {
            loop {
                while let Some(effect) = self.room.poll_effect() {
                    match effect {
                        Effect::Order(Order::Streams(set)) => self.router.set_streams(&set),
                        Effect::Order(Order::Keyframe(serial)) => self.keyframes.push(serial),
                        Effect::Routes(routes) => self.router.set_routes(routes, self.now),
                        Effect::Close(participant) => self.router.detach(participant),
                        _ => {}
                    }
                }
                let Some(demand) = self.router.poll_demand() else { break };
                self.inputs += 1;
                self.room.handle(self.now, Input::Demand(demand));
            }
            self.router.publish(|_| None);
        }

        fn join(&mut self, sends: &[SourceKind]) -> (ParticipantId, Arc<Subscriber>) {
            let who = Admission {
                name: String::new(),
                role: Role::Participant,
                sends: sends.to_vec(),
                receives_audio: Some(SoundTaken::Any),
                receives_video: Some(Codec::Vp8),
                tier: TierChoice::Auto,
                view: ViewPatch::default(),
                bot: false,
                identity: None,
            };
            let participant = self.room.admit(self.now, who).expect("let in").participant;
            let subscriber = Arc::new(Subscriber::default());
            self.router.attach(participant, subscriber.clone(), self.now);
            subscriber.resume();
            self.handle(Input::Connected(participant));
            (participant, subscriber)
        }

        fn handle(&mut self, input: Input) {
            self.room.handle(self.now, input);
            self.settle();
        }

        fn serial(&self, tier: Tier) -> Option<u32> {
            self.router.serials.iter().find(|(key, _)| key.tier == tier).map(|(_, serial)| *serial)
        }

        /// The mixer sends a keyframe of this tier.
        fn keyframe(&mut self, tier: Tier) {
            self.keyframe_of(self.serial(tier).expect("it is encoded"));
        }

        fn keyframe_of(&mut self, serial: u32) {
            let payload = Bytes::from_static(b"payload");
            let packet = EncodedPacket { timestamp: 0, marker: true, starts_keyframe: true, payload };
            self.fan_out.video(serial, &packet, self.now);
            self.settle();
        }

        fn tiers(&self) -> Vec<Tier> {
            self.router.serials.keys().map(|key| key.tier).collect()
        }

        /// The number of subscribers that get packets of a tier.
        fn receivers(&self, tier: Tier) -> usize {
            let serial = self.serial(tier).expect("it is encoded");
            self.router.table.load().video.get(&serial).map_or(0, Vec::len)
        }

        fn pass(&mut self, seconds: u64) {
            self.now = self.now + Duration::from_secs(seconds);
        }
    }

    #[test]
    fn a_thin_link_gets_another_stream_which_takes_over_when_it_flows() {
        let mut routed = Routed::new();
        let (ann, subscriber) = routed.join(&[SourceKind::Camera]);
        routed.join(&[SourceKind::Camera]);
        assert_eq!(routed.tiers(), [Tier::High]);
        routed.keyframe(Tier::High);
        routed.pass(5);
        let pause = subscriber.report(&CONGESTED, routed.now).expect("another tier");
        assert!(!pause.is_zero());
        routed.settle();
        assert_eq!(routed.tiers(), [Tier::Low, Tier::High]);
        assert_eq!((routed.receivers(Tier::Low), routed.receivers(Tier::High)), (1, 2), "the first one still flows");
        let document = routed.room.participant(ann).expect("is here");
        assert_eq!((document.receives.tier, document.receives.limit), (Tier::Low, Some(Limit::Delay)));
        let counts: Vec<_> = routed.room.document().streams.iter().map(|stream| stream.subscribers).collect();
        assert_eq!(counts, [1, 1]);
        routed.keyframe(Tier::Low);
        assert_eq!((routed.receivers(Tier::Low), routed.receivers(Tier::High)), (1, 1));
        assert_eq!(subscriber.flowing(), routed.serial(Tier::Low));
        // A pinned tier does not follow the estimated bandwidth.
        let patch = ParticipantPatch { tier: Some(TierChoice::Pinned(Tier::Medium)), ..Default::default() };
        routed.handle(Input::Update(Changer::Itself, ann, patch));
        routed.keyframe(Tier::Medium);
        routed.pass(5);
        assert_eq!(subscriber.report(&CONGESTED, routed.now), None);
        routed.settle();
        assert_eq!(routed.tiers(), [Tier::Medium, Tier::High]);
    }

    #[test]
    fn a_subscriber_that_changes_its_view_gets_the_old_stream_until_the_new_one_begins() {
        let mut routed = Routed::new();
        let (ann, subscriber) = routed.join(&[SourceKind::Camera]);
        routed.join(&[SourceKind::Camera]);
        routed.keyframe(Tier::High);
        let program = routed.serial(Tier::High).expect("it is encoded");
        let choose = |routed: &mut Routed, json: &str| {
            let patch: ParticipantPatch = serde_json::from_str(json).expect(json);
            routed.handle(Input::Update(Changer::Itself, ann, patch));
            routed.router.serials.values().copied().collect::<Vec<_>>()
        };
        let serials = choose(&mut routed, r#"{"self_view":"hidden"}"#);
        let hidden = *serials.iter().find(|serial| **serial != program).expect("a stream of its own");
        assert_eq!(subscriber.flowing(), Some(program), "no keyframe of the new stream has come");
        // Another change before that: what it never received ends at once, what it receives remains.
        let serials = choose(&mut routed, r#"{"layout":{"kind":"speaker"}}"#);
        assert!(serials.contains(&program) && !serials.contains(&hidden) && serials.len() == 2, "{serials:?}");
        let last = *serials.iter().find(|serial| **serial != program).expect("a stream of its own");
        routed.keyframe_of(last);
        assert_eq!(subscriber.flowing(), Some(last));
        // Back again, while Bob receives `program`: it begins with the keyframe of which the cache has a copy.
        let serials = choose(&mut routed, r#"{"view":"program","self_view":"shown"}"#);
        assert_eq!(serials.len(), 2, "the old stream flows");
        routed.keyframe_of(program);
        let serials: Vec<u32> = routed.router.serials.values().copied().collect();
        assert_eq!((subscriber.flowing(), serials), (Some(program), vec![program]));
        assert_eq!(routed.room.document().views.len(), 1);
    }

    #[test]
    fn the_last_stream_of_a_subscriber_that_takes_only_sound_ends_at_once() {
        let mut routed = Routed::new();
        let (ann, subscriber) = routed.join(&[SourceKind::Camera]);
        routed.keyframe(Tier::High);
        let patch = ParticipantPatch { tier: Some(TierChoice::Pinned(Tier::Audio)), ..Default::default() };
        routed.handle(Input::Update(Changer::Itself, ann, patch));
        assert_eq!((routed.tiers(), subscriber.flowing()), (vec![], None));
        let patch = ParticipantPatch { tier: Some(TierChoice::Auto), ..Default::default() };
        routed.handle(Input::Update(Changer::Itself, ann, patch));
        assert_eq!((routed.tiers(), routed.receivers(Tier::High)), (vec![Tier::High], 1));
        routed.handle(Input::Left(ann, crate::room::document::LeaveReason::Left));
        assert!(routed.tiers().is_empty() && routed.router.table.load().audio.is_empty());
    }

    #[test]
    fn reports_of_a_thousand_viewers_are_no_input_of_the_room_and_their_changes_are_one() {
        let mut routed = Routed::new();
        let viewers: Vec<_> = (0..1_000).map(|_| routed.join(&[]).1).collect();
        routed.keyframe(Tier::High);
        routed.inputs = 0;
        let fine = Reception { lost: 0.01, ..Reception::default() };
        for _ in 0..60 {
            routed.pass(1);
            for viewer in &viewers {
                assert_eq!(viewer.report(&fine, routed.now), None);
            }
            routed.settle();
        }
        assert_eq!(routed.inputs, 0);
        // Half of them change their tier and all want a keyframe: one input.
        viewers.iter().for_each(|viewer| viewer.request_keyframe());
        for viewer in &viewers[..500] {
            viewer.report(&CONGESTED, routed.now).expect("another tier");
        }
        let high = routed.serial(Tier::High).expect("it is encoded");
        routed.settle();
        assert_eq!(routed.inputs, 1);
        assert_eq!(routed.keyframes, [high]);
        let counts: Vec<_> = routed.room.document().streams.iter().map(|stream| stream.subscribers).collect();
        assert_eq!(counts, [500, 500]);
        assert_eq!((routed.receivers(Tier::Low), routed.receivers(Tier::High)), (500, 1_000));
    }
}
