//! The result of a benchmark as one self-contained HTML file.
//!
//! Owns: the figures shown and their texts. Does not know: how plots are drawn ([`plot`](super::plot)), how anything
//! was measured. Trials go in, HTML comes out.

use std::fmt::Write as _;

use super::plot::{Bars, Line, Plot, escaped, short};
use super::{Found, PacketCost, Series, Trial, cost};
use crate::bots::Role;
use crate::bots::report::{Group, Spread};

const STYLE: &str = include_str!("page.css");

/// Where and when the benchmark ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circumstances {
    /// The server's version, or its URL.
    pub server: String,
    /// Processor, cores, system.
    pub machine: String,
    /// Seconds since 1970.
    pub unix_seconds: u64,
    /// Length of the measurement in each room, in seconds.
    pub watched: u64,
}

/// A figure of every trial.
struct Figure {
    title: &'static str,
    about: &'static str,
    unit: &'static str,
    at_least: f64,
    stacked: bool,
    parts: &'static [Part],
}

/// The name of a series of bars, its CSS class, and its value in a trial.
type Part = (&'static str, &'static str, fn(&Trial) -> Option<f64>);

const FIGURES: [Figure; 6] = [
    Figure {
        title: "Joining",
        about: "From the POST of the offer to the connection, to the first audio packet, and to the first complete \
                keyframe; median of the bots in the plot.",
        unit: "ms",
        at_least: 50.0,
        stacked: false,
        parts: &[
            ("connected", "a", |trial| joining(trial, |group| group.connect_ms)),
            ("first sound", "b", |trial| joining(trial, |group| group.first_sound_ms)),
            ("first picture", "c", |trial| joining(trial, |group| group.first_picture_ms)),
        ],
    },
    Figure {
        title: "Delay",
        about: "From taking a picture to decoding it at another bot, through the mix. Read from a clock in the \
                picture; a player's own buffer is not included.",
        unit: "ms",
        at_least: 50.0,
        stacked: false,
        parts: &[
            ("median", "a", |trial| Some(trial.report.delay?.median_ms)),
            ("95th percentile", "c", |trial| Some(trial.report.delay?.p95_ms)),
        ],
    },
    Figure {
        title: "Smoothness",
        about: "Longest gap of any bot between two pictures, and between two audio packets. At 30 pictures per second \
                33 ms are normal; over 200 ms count as a freeze.",
        unit: "ms",
        at_least: 100.0,
        stacked: false,
        parts: &[
            ("longest without picture", "a", |trial| largest(trial, |group| group.video_gap_ms)),
            ("longest without sound", "b", |trial| largest(trial, |group| group.audio_gap_ms)),
        ],
    },
    Figure {
        title: "Loss and freezes",
        about: "Packets lost after retransmission, in percent; and gaps between pictures of over 200 ms, of all bots.",
        unit: "",
        at_least: 1.0,
        stacked: false,
        parts: &[
            ("lost %", "a", |trial| largest(trial, |group| group.loss_percent)),
            ("freezes", "c", |trial| Some(freezes(trial) as f64)),
        ],
    },
    Figure {
        title: "Server CPU",
        about: "While all bots were in the room, in percent of one core: the edge serves connections and the \
                fan-out, the mixer decodes, composes and encodes.",
        unit: "% of a core",
        at_least: 10.0,
        stacked: true,
        parts: &[
            ("mixer", "b", |trial| Some(trial.cpu?.mixer * 100.0)),
            ("edge", "a", |trial| Some(trial.cpu?.edge * 100.0)),
        ],
    },
    Figure {
        title: "Server CPU per bot",
        about: "The same per bot. For viewers only the edge counts: the mixer's work does not depend on their \
                number.",
        unit: "% of a core",
        at_least: 1.0,
        stacked: false,
        parts: &[("per bot", "a", cpu_each)],
    },
];

/// The bots that the series of a trial is about.
fn group(trial: &Trial) -> Option<&Group> {
    let role = if trial.series == Series::Viewers { Role::Viewer } else { Role::Participant };
    trial.report.groups.iter().find(|group| group.role == role)
}

fn joining(trial: &Trial, figure: fn(&Group) -> Option<Spread>) -> Option<f64> {
    Some(figure(group(trial)?)?.median)
}

fn largest(trial: &Trial, figure: fn(&Group) -> f64) -> Option<f64> {
    trial.report.groups.iter().map(figure).reduce(f64::max)
}

fn freezes(trial: &Trial) -> u64 {
    trial.report.groups.iter().map(|group| group.freezes).sum()
}

/// CPU per bot of the series, in percent of a core. For viewers only the serving process counts, not the mixer.
fn cpu_each(trial: &Trial) -> Option<f64> {
    let cpu = trial.cpu?;
    let (cost, heads) = match trial.series {
        Series::Participants => (cpu.edge + cpu.mixer, trial.participants),
        Series::Viewers => (cpu.edge, trial.participants + trial.viewers),
    };
    (heads > 0).then(|| cost * 100.0 / heads as f64)
}

/// Writes the page.
pub fn write(found: &Found, circumstances: &Circumstances) -> String {
    let Found { rooms: trials, packet, .. } = found;
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>commingle bench</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    let Circumstances { server, machine, unix_seconds, watched } = circumstances;
    let _ = write!(
        html,
        "<h1>commingle bench</h1>\n<p class=\"about\">{} · {} · {} · {watched} s per room · \
         senders send 640x360 at 30 frames per second, two send a tone · viewers receive the tier low</p>\n",
        escaped(server),
        escaped(machine),
        date(*unix_seconds)
    );
    cards(&mut html, trials);
    for figure in &FIGURES {
        section(&mut html, figure, trials);
    }
    if let Some(packet) = packet {
        line(&mut html, packet, trials);
    }
    table(&mut html, trials);
    html + "</main>\n</body>\n</html>\n"
}

/// The most important figures.
fn cards(html: &mut String, trials: &[Trial]) {
    html.push_str("<div class=\"cards\">\n");
    let mut card = |value: String, unit: &str, what: &str, class: &str| {
        let (unit, what) = (escaped(unit), escaped(what));
        let _ = writeln!(
            html,
            "<div class=\"card\"><b class=\"{class}\">{value} <small>{unit}</small></b><span>{what}</span></div>"
        );
    };
    let most = |series| trials.iter().rfind(|trial| trial.series == series);
    if let Some(trial) = most(Series::Participants) {
        let participants = format!("{} participants", trial.participants);
        if let Some(delay) = trial.report.delay {
            card(short(delay.median_ms), "ms", &format!("from camera to picture, {participants}"), "");
        }
        if let Some(each) = cpu_each(trial) {
            card(short(each), "% of a core", &format!("per participant, {participants}"), "");
        }
    }
    if let Some(trial) = most(Series::Viewers)
        && let Some(each) = cpu_each(trial)
    {
        card(
            short(each),
            "% of a core",
            &format!("of the edge per client, {} clients", trial.viewers + trial.participants),
            "",
        );
    }
    let lost = trials.iter().filter_map(|trial| largest(trial, |group| group.loss_percent)).fold(0.0, f64::max);
    card(short(lost), "%", "most packets lost, of all rooms", if lost < 0.1 { "good" } else { "bad" });
    let frozen: u64 = trials.iter().map(freezes).sum();
    card(frozen.to_string(), "", "freezes in all rooms", if frozen == 0 { "good" } else { "bad" });
    html.push_str("</div>\n");
}

fn section(html: &mut String, figure: &Figure, trials: &[Trial]) {
    let has_any = trials.iter().any(|trial| figure.parts.iter().any(|(_, _, value)| value(trial).is_some()));
    if !has_any {
        return;
    }
    let _ = write!(html, "<section>\n<h2>{}</h2>\n<p>{}</p>\n<div class=\"legend\">", figure.title, figure.about);
    for (name, class, _) in figure.parts {
        let _ = write!(html, "<span><i class=\"{class}\"></i>{name}</span>");
    }
    html.push_str("</div>\n<div class=\"plots\">\n");
    let mut plots = [(Series::Participants, "participants"), (Series::Viewers, "viewers of two participants")]
        .map(|(series, caption)| (caption, plot(figure, series, caption, trials)));
    // Both on one scale: they are to be compared.
    let top = plots.iter().map(|(_, plot)| plot.top()).fold(0.0, f64::max);
    for (caption, plot) in plots.iter_mut().filter(|(_, plot)| !plot.categories.is_empty()) {
        plot.at_least = top;
        let unit = if figure.unit.is_empty() { String::new() } else { format!("{}, ", figure.unit) };
        let _ = writeln!(html, "<figure><figcaption>{unit}by number of {caption}</figcaption>{}</figure>", plot.svg());
    }
    html.push_str("</div>\n</section>\n");
}

/// CPU of the serving process by viewers, and the cost of a packet from its slope.
fn line(html: &mut String, packet: &PacketCost, trials: &[Trial]) {
    let points: Vec<(&Trial, (f64, f64))> =
        trials.iter().filter_map(|trial| Some((trial, cost::point(trial, Series::Viewers)?))).collect();
    let (mut viewers, mut packets) = (0.0, 0.0);
    for (trial, (a_second, _)) in &points {
        viewers += trial.viewers as f64;
        packets += a_second;
    }
    let each = if viewers > 0.0 { packets / viewers } else { 0.0 };
    let line = Line {
        title: "CPU of the edge, by number of viewers".to_owned(),
        unit: "% of a core",
        points: points.iter().map(|(trial, (_, cpu))| (trial.viewers as f64, cpu * 100.0)).collect(),
        through: (packet.base * 100.0, packet.micros * each / 1e4),
    };
    let PacketCost { micros, floor_micros, .. } = packet;
    let _ = write!(
        html,
        "<section>\n<h2>A packet to a viewer</h2>\n<p>{micros:.1} µs of the edge's CPU by the slope of the line, \
         {:.0} packets per second and viewer. That is {:.1} times the {floor_micros:.1} µs of encrypting and sending \
         alone, measured in the same run.</p>\n<div class=\"plots\">\n<figure>\
         <figcaption>% of a core, by number of viewers</figcaption>{}</figure>\n</div>\n</section>\n",
        each,
        packet.ratio(),
        line.svg()
    );
}

fn plot(figure: &Figure, series: Series, caption: &str, trials: &[Trial]) -> Plot {
    let of_series: Vec<&Trial> = trials.iter().filter(|trial| trial.series == series).collect();
    let count = |trial: &&Trial| match series {
        Series::Participants => trial.participants.to_string(),
        Series::Viewers => trial.viewers.to_string(),
    };
    let bars = figure.parts.iter().map(|(name, class, value)| Bars {
        name,
        class,
        values: of_series.iter().map(|trial| value(trial)).collect(),
    });
    Plot {
        title: format!("{}, by number of {caption}", figure.title),
        unit: figure.unit,
        categories: of_series.iter().map(count).collect(),
        bars: bars.collect(),
        stacked: figure.stacked,
        at_least: figure.at_least,
    }
}

/// One column of the table: its head, and its cell for a trial.
type TableColumn = (&'static str, fn(&Trial) -> String);

const TABLE: [TableColumn; 11] = [
    ("Room", |trial| match trial.viewers {
        0 => format!("{} participants", trial.participants),
        1 => format!("{} + 1 viewer", trial.participants),
        viewers => format!("{} + {viewers} viewers", trial.participants),
    }),
    ("Stayed to the end", |trial| {
        let groups = &trial.report.groups;
        let stayed: usize = groups.iter().map(|group| group.stayed).sum();
        let (class, all) = if trial.report.passed { ("good", "all".to_owned()) } else { ("bad", format!("{stayed}")) };
        format!("<span class=\"{class}\">{all}</span>")
    }),
    ("First picture, ms (p95)", |trial| {
        let spread = group(trial).and_then(|group| group.first_picture_ms);
        spread.map_or_else(dash, |spread| format!("{} ({})", short(spread.median), short(spread.p95)))
    }),
    ("Delay, ms (p95)", |trial| {
        let delay = trial.report.delay;
        delay.map_or_else(dash, |delay| format!("{} ({})", short(delay.median_ms), short(delay.p95_ms)))
    }),
    ("Frames per second, minimum", |trial| {
        let rates = trial.report.groups.iter().filter_map(|group| Some(group.frame_rate?.1));
        rates.reduce(f64::min).map_or_else(dash, short)
    }),
    ("kbit/s each", |trial| group(trial).map_or_else(dash, |group| format!("{:.0}", group.kbps))),
    ("Lost, %", |trial| largest(trial, |group| group.loss_percent).map_or_else(dash, short)),
    ("Freezes", |trial| freezes(trial).to_string()),
    ("Edge, % of a core", |trial| trial.cpu.map_or_else(dash, |cpu| short(cpu.edge * 100.0))),
    ("Mixer, % of a core", |trial| trial.cpu.map_or_else(dash, |cpu| short(cpu.mixer * 100.0))),
    ("CPU per bot, %", |trial| cpu_each(trial).map_or_else(dash, short)),
];

fn dash() -> String {
    "–".to_owned()
}

fn table(html: &mut String, trials: &[Trial]) {
    html.push_str("<section>\n<h2>All figures</h2>\n<div class=\"wide\"><table>\n<tr>");
    for (head, _) in TABLE {
        let _ = write!(html, "<th>{head}</th>");
    }
    html.push_str("</tr>\n");
    for trial in trials {
        html.push_str("<tr>");
        for (_, cell) in TABLE {
            let _ = write!(html, "<td>{}</td>", cell(trial));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n</section>\n");
    for trial in trials.iter().filter(|trial| !trial.report.passed) {
        let _ = write!(html, "<section>\n<h2 class=\"bad\">{} + {} viewers</h2>\n", trial.participants, trial.viewers);
        for (reason, count) in &trial.report.failures {
            let _ = writeln!(html, "<p>{count}: {}</p>", escaped(reason));
        }
        html.push_str("</section>\n");
    }
}

/// A date and time in UTC, by the calendar of Howard Hinnant's `civil_from_days`.
fn date(unix_seconds: u64) -> String {
    let (days, seconds) = ((unix_seconds / 86_400) as i64 + 719_468, unix_seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::super::ServerCpu;
    use super::*;
    use crate::bots::Report;
    use crate::bots::report::{DelayReport, Load};

    fn trial(series: Series, participants: usize, viewers: usize) -> Trial {
        let spread = Some(Spread { median: 80.0, p95: 120.0, max: 130.0 });
        let group = |role| Group {
            role,
            bots: 2,
            stayed: 2,
            connect_ms: spread,
            first_picture_ms: spread,
            first_sound_ms: spread,
            frame_rate: Some((30.0, 29.9)),
            kbps: 1580.0,
            packets: 1000,
            loss_percent: 0.0,
            repaired: 0,
            freezes: 0,
            video_gap_ms: 50.0,
            audio_gap_ms: 30.0,
        };
        let report = Report {
            url: "http://h".to_owned(),
            room: "r".to_owned(),
            passed: true,
            groups: vec![group(Role::Participant), group(Role::Viewer)],
            delay: Some(DelayReport { read: 9, median_ms: 22.4, p95_ms: 31.0, max_ms: 60.0 }),
            load: Load::default(),
            failures: std::collections::BTreeMap::new(),
            bots: Vec::new(),
        };
        let cpu = Some(ServerCpu { edge: 0.1, mixer: 0.35 });
        Trial { series, participants, viewers, report, cpu }
    }

    fn page(trials: &[Trial]) -> String {
        let circumstances = Circumstances {
            server: "a <server>".to_owned(),
            machine: "a machine".to_owned(),
            unix_seconds: 1_795_480_200,
            watched: 8,
        };
        let packet = PacketCost::of(trials, Series::Viewers, 2.0);
        write(&Found { rooms: trials.to_vec(), packet, participant_packet: None }, &circumstances)
    }

    #[test]
    fn the_page_stands_alone_and_says_what_was_found() {
        let html = page(&[trial(Series::Participants, 9, 0), trial(Series::Viewers, 2, 98)]);
        for expected in
            ["a &lt;server&gt;", "2 + 98 viewers", "22 <small>ms", "5.0 <small>% of a core", "0.10 <small>", ">45<"]
        {
            assert!(html.contains(expected), "`{expected}` is not in the page");
        }
        for elsewhere in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!html.contains(elsewhere), "the page needs `{elsewhere}`");
        }
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert_eq!(html.matches("<svg").count(), 2 * FIGURES.len());
    }

    #[test]
    fn what_a_packet_costs_is_the_slope_of_the_line() {
        let trials: Vec<Trial> = [(10, 0.04), (100, 0.22), (1_000, 2.02)]
            .into_iter()
            .map(|(viewers, edge)| {
                let mut trial = trial(Series::Viewers, 2, viewers);
                trial.cpu = Some(ServerCpu { edge, mixer: 0.3 });
                trial.report.load.seconds = 2.0;
                trial.report.groups[1].packets = 2 * 200 * viewers as u64;
                trial
            })
            .collect();
        let cost = PacketCost::of(&trials, Series::Viewers, 2.5).expect("there is a line");
        assert!((cost.micros - 10.0).abs() < 0.01 && (cost.ratio() - 4.0).abs() < 0.01, "{cost:?}");
        assert!((cost.base - 0.02).abs() < 0.001, "{cost:?}");
        let html = page(&trials);
        assert!(html.contains("10.0 µs") && html.contains("200 packets") && html.contains("5.0 times"), "{html}");
        assert_eq!(PacketCost::of(&trials[..1], Series::Viewers, 2.5), None);
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        let mut unknown = trial(Series::Participants, 2, 0);
        unknown.cpu = None;
        let html = page(&[unknown]);
        assert_eq!(html.matches("<svg").count(), FIGURES.len() - 2);
        assert!(!html.contains("Server CPU"), "no CPU of a server elsewhere");
    }

    #[test]
    fn failures_are_named() {
        let mut failed = trial(Series::Participants, 2, 0);
        failed.report.passed = false;
        failed.report.failures.insert("403: a <b>".to_owned(), 2);
        let html = page(&[failed]);
        assert!(html.contains("2: 403: a &lt;b&gt;"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_480_200), "2026-11-24 00:30 UTC");
        assert_eq!(date(4_107_542_399), "2100-02-28 23:59 UTC");
    }
}
