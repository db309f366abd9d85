//! The report of a load test: the figures of each bot, and their summary as a table.
//!
//! Owns: which figures there are, and how they are summed up. Does not know: how they are measured. Plain data, also
//! written as JSON; the unit of a figure is in its name.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::clock_reader::Readings;
use super::{BotSpec, Plan, Role};
use crate::client::connection::Connection;
use crate::client::receive::ReceiveStream;
use crate::time::Timestamp;

/// Milliseconds, rounded to a tenth.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The statistics of one received RTP stream.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct StreamReport {
    /// Packets received, without duplicates.
    pub packets: u64,
    /// Their bytes, without UDP and IP headers.
    pub bytes: u64,
    /// Packets not received in time.
    pub lost: u64,
    /// Packets received after a gap in the sequence numbers showed them missing, mostly retransmissions.
    pub repaired: u64,
    /// Complete frames; of audio, packets.
    pub frames: u64,
    /// Keyframes among them.
    pub keyframes: u64,
    /// Frames per second.
    pub frame_rate: f64,
    /// Longest gap between two frames.
    pub longest_gap_ms: f64,
    /// Gaps of more than 200 ms.
    pub freezes: u64,
    /// Sum of the gaps of more than 200 ms.
    pub frozen_ms: f64,
}

impl StreamReport {
    fn of(stream: &ReceiveStream, now: Timestamp) -> Self {
        let stats = stream.stats();
        let seconds = stream.measured_for(now).as_secs_f64();
        let rate = if seconds > 0.0 { stats.frames as f64 / seconds } else { 0.0 };
        Self {
            packets: stats.packets,
            bytes: stats.bytes,
            lost: stats.lost,
            repaired: stats.repaired,
            frames: stats.frames,
            keyframes: stats.keyframes,
            frame_rate: (rate * 10.0).round() / 10.0,
            longest_gap_ms: millis(stats.longest_gap),
            freezes: stats.freezes,
            frozen_ms: millis(stats.frozen),
        }
    }
}

/// Delay from the camera to the decoder, without a player's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DelayReport {
    /// Pictures on which the clock was read.
    pub read: usize,
    /// Median.
    pub median_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// Maximum.
    pub max_ms: f64,
}

impl DelayReport {
    fn of(mut delays: Vec<Duration>) -> Option<Self> {
        delays.sort_unstable();
        let at = |part| percentile(&delays, part).map(millis);
        Some(Self { read: delays.len(), median_ms: at(0.5)?, p95_ms: at(0.95)?, max_ms: at(1.0)? })
    }
}

/// The report of one bot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BotReport {
    /// Its name in the room.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Why the bot could not join, or lost its connection.
    pub failed: Option<String>,
    /// How often the server deferred the join by `Retry-After`.
    pub deferred: u32,
    /// From the POST of the offer to the answer.
    pub answer_ms: Option<f64>,
    /// From the POST to the completed DTLS handshake.
    pub connect_ms: Option<f64>,
    /// From the POST to the first complete keyframe.
    pub first_picture_ms: Option<f64>,
    /// From the POST to the first packet of sound.
    pub first_sound_ms: Option<f64>,
    /// Length of the measurement, while all bots were in the room.
    pub seconds: f64,
    /// Video received.
    pub video: StreamReport,
    /// Audio received.
    pub audio: StreamReport,
    /// Packets sent.
    pub sent: u64,
    /// Pictures decoded; None for a bot that does not decode.
    pub decoded: Option<u64>,
    /// The delay of the received video; None for a bot that read no clock in it.
    pub delay: Option<DelayReport>,
    /// When the offer was posted, the last time if the server deferred the join.
    #[serde(skip)]
    pub(super) posted: Timestamp,
    /// Every delay of which `delay` is the summary.
    #[serde(skip)]
    delays: Vec<Duration>,
}

impl BotReport {
    pub(super) fn new(spec: &BotSpec) -> Self {
        Self {
            name: spec.name.clone(),
            role: spec.role,
            failed: None,
            deferred: 0,
            answer_ms: None,
            connect_ms: None,
            first_picture_ms: None,
            first_sound_ms: None,
            seconds: 0.0,
            video: StreamReport::default(),
            audio: StreamReport::default(),
            sent: 0,
            decoded: None,
            delay: None,
            posted: Timestamp::default(),
            delays: Vec::new(),
        }
    }

    pub(super) fn answered_at(&mut self, now: Timestamp) {
        self.answer_ms = Some(millis(now.since(self.posted)));
    }

    pub(super) fn connected_at(&mut self, now: Timestamp) {
        self.connect_ms = Some(millis(now.since(self.posted)));
    }

    pub(super) fn finish(&mut self, now: Timestamp, connection: &mut Connection, readings: Option<Readings>) {
        let since = |then: Option<Timestamp>| then.map(|then| millis(then.since(self.posted)));
        self.first_picture_ms = since(connection.video().first_frame());
        self.first_sound_ms = since(connection.audio().first_frame());
        self.seconds = connection.video().measured_for(now).max(connection.audio().measured_for(now)).as_secs_f64();
        self.video = StreamReport::of(connection.video(), now);
        self.audio = StreamReport::of(connection.audio(), now);
        let (audio, video) = connection.sent();
        self.sent = audio + video;
        if let Some(readings) = readings {
            self.decoded = Some(readings.pictures);
            self.delay = DelayReport::of(readings.delays.clone());
            self.delays = readings.delays;
        }
    }
}

/// The CPU use of the bots themselves, while all were in the room.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Load {
    /// Length of the measurement.
    pub seconds: f64,
    /// CPU time of this process, in seconds.
    pub cpu_seconds: f64,
    /// Datagrams received by all bots.
    pub packets: u64,
}

impl Load {
    /// CPU time of this process per received packet in microseconds, with sending and decoding.
    pub fn micros_per_packet(&self) -> f64 {
        if self.packets == 0 { 0.0 } else { self.cpu_seconds * 1e6 / self.packets as f64 }
    }
}

/// Distribution of one figure over many bots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Maximum.
    pub max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |part| percentile(&values, part);
        Some(Self { median: at(0.5)?, p95: at(0.95)?, max: at(1.0)? })
    }
}

/// The nearest-rank percentile: the smallest of the sorted values such that at least this part (0 to 1) of them is not
/// larger.
fn percentile<T: Copy>(sorted: &[T], part: f64) -> Option<T> {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied()
}

/// The summary of the bots of one role.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Their role.
    pub role: Role,
    /// How many there are.
    pub bots: usize,
    /// How many stayed in the room until the end.
    pub stayed: usize,
    /// From POST to connection, in ms.
    pub connect_ms: Option<Spread>,
    /// From POST to the first complete keyframe, in ms.
    pub first_picture_ms: Option<Spread>,
    /// From POST to the first sound, in ms.
    pub first_sound_ms: Option<Spread>,
    /// Frames per second: median and minimum.
    pub frame_rate: Option<(f64, f64)>,
    /// Mean received bitrate of one bot in kbit/s, video and audio.
    pub kbps: f64,
    /// Packets received.
    pub packets: u64,
    /// Lost packets in percent.
    pub loss_percent: f64,
    /// Packets of video received after a gap in the sequence numbers showed them missing.
    pub repaired: u64,
    /// Freezes, of all bots together.
    pub freezes: u64,
    /// Longest gap between pictures of any bot, in ms.
    pub video_gap_ms: f64,
    /// Longest gap between audio packets of any bot, in ms.
    pub audio_gap_ms: f64,
}

impl Group {
    fn of(role: Role, bots: &[&BotReport]) -> Self {
        let sum = |value: fn(&BotReport) -> u64| bots.iter().map(|bot| value(bot)).sum::<u64>();
        let largest = |value: fn(&BotReport) -> f64| bots.iter().map(|bot| value(bot)).fold(0.0, f64::max);
        let spread = |value: fn(&BotReport) -> Option<f64>| Spread::of(bots.iter().filter_map(|bot| value(bot)));
        let (packets, lost) = (sum(|b| b.video.packets + b.audio.packets), sum(|b| b.video.lost + b.audio.lost));
        let rates = bots.iter().filter(|bot| bot.video.frames > 0).map(|bot| bot.video.frame_rate);
        let slowest = rates.clone().fold(f64::INFINITY, f64::min);
        let seconds: f64 = bots.iter().map(|bot| bot.seconds).sum();
        let bits = sum(|b| b.video.bytes + b.audio.bytes) as f64 * 8.0;
        Self {
            role,
            bots: bots.len(),
            stayed: bots.iter().filter(|bot| bot.failed.is_none()).count(),
            connect_ms: spread(|bot| bot.connect_ms),
            first_picture_ms: spread(|bot| bot.first_picture_ms),
            first_sound_ms: spread(|bot| bot.first_sound_ms),
            frame_rate: Spread::of(rates).map(|rate| (rate.median, slowest)),
            kbps: if seconds > 0.0 { (bits / seconds / 1000.0).round() } else { 0.0 },
            packets,
            loss_percent: if packets + lost == 0 { 0.0 } else { lost as f64 * 100.0 / (packets + lost) as f64 },
            repaired: sum(|bot| bot.video.repaired),
            freezes: sum(|bot| bot.video.freezes),
            video_gap_ms: largest(|bot| bot.video.longest_gap_ms),
            audio_gap_ms: largest(|bot| bot.audio.longest_gap_ms),
        }
    }
}

/// The report of a load test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The server.
    pub url: String,
    /// The room.
    pub room: String,
    /// All bots stayed until the end.
    pub passed: bool,
    /// Bots by role.
    pub groups: Vec<Group>,
    /// Delay from the camera to the decoder, over all bots that read the clock.
    pub delay: Option<DelayReport>,
    /// CPU use of the bots themselves.
    pub load: Load,
    /// Failed bots by reason.
    pub failures: BTreeMap<String, usize>,
    /// Every bot.
    pub bots: Vec<BotReport>,
}

impl Report {
    /// The report of `bots`. `planned` is the number of bots that were to join; the missing ones count as failed.
    pub(super) fn new(plan: &Plan, planned: usize, mut bots: Vec<BotReport>, load: Load) -> Self {
        bots.sort_by_key(|bot| (bot.role as u8, bot.posted));
        let roles = [Role::Participant, Role::Publisher, Role::Viewer];
        let groups = roles.into_iter().filter_map(|role| {
            let of_role: Vec<&BotReport> = bots.iter().filter(|bot| bot.role == role).collect();
            (!of_role.is_empty()).then(|| Group::of(role, &of_role))
        });
        let groups = groups.collect();
        let delay = DelayReport::of(bots.iter().flat_map(|bot| bot.delays.iter().copied()).collect());
        let mut failures = BTreeMap::new();
        for reason in bots.iter().filter_map(|bot| bot.failed.clone()) {
            *failures.entry(reason).or_default() += 1;
        }
        if bots.len() < planned {
            failures.insert("stopped before it began to join, or panicked".to_owned(), planned - bots.len());
        }
        Self {
            url: plan.url.clone(),
            room: plan.room.to_string(),
            passed: failures.is_empty(),
            groups,
            delay,
            load,
            failures,
            bots,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "room {} at {}, {:.1} s with all bots in it", self.room, self.url, self.load.seconds)?;
        let columns: Vec<Column> = self.groups.iter().map(Column::of).collect();
        for (row, label) in LABELS.iter().enumerate() {
            write!(f, "{label:<26}")?;
            for Column(cells) in &columns {
                write!(f, "{:>24}", cells[row])?;
            }
            writeln!(f)?;
        }
        if let Some(delay) = self.delay {
            let DelayReport { read, median_ms, p95_ms, max_ms } = delay;
            let spread = format!("{median_ms:.0} / {p95_ms:.0} / {max_ms:.0} ms");
            writeln!(f, "{:<26}{spread:>24}   median / p95 / max of {read} pictures", "camera to picture")?;
        }
        let Load { seconds, cpu_seconds, packets } = self.load;
        let share = if seconds > 0.0 { cpu_seconds * 100.0 / seconds } else { 0.0 };
        writeln!(
            f,
            "the bots themselves: {share:.0} % of a core, {:.1} µs for each of {packets} packets",
            self.load.micros_per_packet()
        )?;
        for (reason, count) in &self.failures {
            writeln!(f, "FAILED {count}: {reason}")?;
        }
        Ok(())
    }
}

/// The labels of the table's rows.
const LABELS: [&str; 11] = [
    "",
    "there to the end",
    "connected after ms",
    "first picture after ms",
    "first sound after ms",
    "frames a second",
    "kbit/s each",
    "lost %, repaired",
    "freezes",
    "longest without picture",
    "longest without sound",
];

/// The cells of one group, one per row.
struct Column([String; LABELS.len()]);

impl Column {
    fn of(group: &Group) -> Self {
        let dash = || "-".to_owned();
        let spread = |spread: Option<Spread>| {
            spread.map_or_else(dash, |s| format!("{:.0} / {:.0} / {:.0}", s.median, s.p95, s.max))
        };
        let receives = group.role != Role::Publisher;
        let when = |text: String| if receives { text } else { dash() };
        Self([
            match group.role {
                Role::Participant => "participants".to_owned(),
                Role::Publisher => "publishers".to_owned(),
                Role::Viewer => "viewers".to_owned(),
            },
            format!("{} of {}", group.stayed, group.bots),
            spread(group.connect_ms),
            spread(group.first_picture_ms),
            spread(group.first_sound_ms),
            group.frame_rate.map_or_else(dash, |(median, least)| format!("{median:.1}, least {least:.1}")),
            when(format!("{:.0}", group.kbps)),
            when(format!("{:.3}, {}", group.loss_percent, group.repaired)),
            when(group.freezes.to_string()),
            when(format!("{:.0} ms", group.video_gap_ms)),
            when(format!("{:.0} ms", group.audio_gap_ms)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bot(number: u64, role: Role) -> BotReport {
        let spec = BotSpec { name: format!("B{number}"), role, shows_clock: false, talker: None, decodes: false };
        let mut bot = BotReport::new(&spec);
        bot.posted = Timestamp::from_micros(number);
        (bot.connect_ms, bot.seconds) = (Some(number as f64), 5.0);
        bot.video = StreamReport {
            packets: 900,
            bytes: 100_000,
            lost: u64::from(number == 1) * 100,
            frames: 150,
            frame_rate: 30.0 - number as f64,
            longest_gap_ms: 40.0 + number as f64,
            freezes: number,
            ..StreamReport::default()
        };
        bot
    }

    fn plan() -> Plan {
        Plan {
            url: "http://h".to_owned(),
            room: "r".parse().expect("a name"),
            participants: 0,
            publishers: 0,
            viewers: 4,
            clock: false,
            talkers: 0,
            decode: 0,
            tier: "auto".to_owned(),
            codec: crate::media::Codec::Vp8,
            camera: super::super::Camera::default(),
            clip: None,
            speech: false,
            loss: 0.0,
            tcp: false,
            rate: 1.0,
            token: None,
        }
    }

    #[test]
    fn bots_are_summed_up_by_role() {
        let bots = [3, 1, 4, 2].map(|number| bot(number, Role::Viewer)).to_vec();
        let report = Report::new(&plan(), 4, bots, Load { seconds: 5.0, cpu_seconds: 0.5, packets: 100_000 });
        assert!(report.passed);
        let [viewers] = report.groups.as_slice() else { panic!("{:?}", report.groups) };
        assert_eq!((viewers.bots, viewers.stayed, viewers.freezes), (4, 4, 10));
        assert_eq!(viewers.connect_ms, Some(Spread { median: 2.0, p95: 4.0, max: 4.0 }));
        assert_eq!(viewers.frame_rate, Some((27.0, 26.0)));
        assert!((viewers.loss_percent - 100.0 * 100.0 / 3700.0).abs() < 1e-9);
        assert_eq!(viewers.video_gap_ms, 44.0);
        assert_eq!(report.load.micros_per_packet(), 5.0);
        let order: Vec<&str> = report.bots.iter().map(|bot| bot.name.as_str()).collect();
        assert_eq!(order, ["B1", "B2", "B3", "B4"]);
        let text = report.to_string();
        for expected in
            ["4 of 4", "2 / 4 / 4", "27.0, least 26.0", "2.703, 0", "44 ms", "160", "10 % of a core, 5.0 µs"]
        {
            assert!(text.contains(expected), "`{expected}` is not in\n{text}");
        }
    }

    #[test]
    fn failed_and_missing_bots_are_reported() {
        let mut failed = bot(1, Role::Participant);
        failed.failed = Some("403: no".to_owned());
        let report = Report::new(&plan(), 3, vec![failed, bot(2, Role::Participant)], Load::default());
        assert!(!report.passed);
        assert_eq!(report.failures.values().sum::<usize>(), 2);
        assert!(report.to_string().contains("FAILED 1: 403: no"));
        assert_eq!(report.groups[0].stayed, 1);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let delays: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let delay = DelayReport::of(delays).expect("some");
        assert_eq!((delay.median_ms, delay.p95_ms, delay.max_ms, delay.read), (50.0, 95.0, 100.0, 100));
        assert_eq!(DelayReport::of(Vec::new()), None);
    }
}
