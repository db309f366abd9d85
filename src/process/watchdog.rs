//! The watchdog of a child process: whether a process that sends nothing hangs, or waits for the processor.
//!
//! Owns: the time of the last message, samples of the process's threads, the verdict. Does not know: sockets, what the
//! messages mean, how a process is killed. In: messages, the time, samples from `/proc`. Out: [`Verdict`].
//!
//! Rules
//! 1. A process sends a report every 250 ms; an idle process less often, and says so. Any message proves that it lives.
//! 2. A process without a message for [`SILENCE_MAX`] hangs (plus the time by which its report comes later), unless one
//!    of its threads waits for the processor or a disk: on an overloaded machine a new process would be no faster.
//! 3. No process is given more than [`STARVED_MAX`]: a thread in an endless loop on an overloaded machine looks as if
//!    it waited for the processor.
//! 4. A process whose reports say that a loop has not finished a tick for [`STALL_MAX`] hangs, although it reports.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Timestamp;

/// Time from the start of a process to its first message: loading codecs takes long on a cold disk.
const START_MAX: Duration = Duration::from_secs(10);
/// Interval of the reports of a process that has announced none.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Longest interval that a process may announce.
const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Silence after which the threads are sampled for the first time; longer than the interval of reports.
const FIRST_SAMPLE: Duration = Duration::from_millis(400);
/// From one sample to the next, at least.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(400);
/// Silence of a process that hangs if none of its threads waits for the processor.
const SILENCE_MAX: Duration = Duration::from_millis(1_200);
/// Silence of a process that is ended although its threads wait for the processor.
const STARVED_MAX: Duration = Duration::from_secs(5);
/// Time for which one tick may run.
const STALL_MAX: Duration = Duration::from_secs(5);

/// A thread as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thread {
    /// It runs or waits for the processor (state `R`), or waits for a disk (state `D`).
    pub(super) runnable: bool,
    /// CPU time that it has used.
    pub(super) cpu: Duration,
}

/// The threads of a process by their ids.
pub(super) type Threads = BTreeMap<u32, Thread>;

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It lives as far as is known; ask again at this time unless a message comes before.
    Alive(Timestamp),
    /// It hangs, for this reason.
    Hung(String),
}

/// The watchdog of one process.
#[derive(Debug)]
pub(super) struct Watchdog {
    last_message: Timestamp,
    has_started: bool,
    /// By how much its next report comes later than [`REPORT_INTERVAL`].
    later: Duration,
    sampled: Option<(Timestamp, Threads)>,
}

impl Watchdog {
    /// The watchdog of a process that starts now.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { last_message: now, has_started: false, later: Duration::ZERO, sampled: None }
    }

    /// Bytes came from the process.
    pub(super) fn message(&mut self, now: Timestamp) {
        *self = Self { last_message: now, has_started: true, later: self.later, sampled: None };
    }

    /// The process has announced its next report within this time.
    pub(super) fn expect_report(&mut self, within: Duration) {
        self.later = within.min(REPORT_INTERVAL_MAX).saturating_sub(REPORT_INTERVAL);
    }

    /// A report says that a loop has been busy with one tick for so long.
    pub(super) fn stalled(stalled: Duration) -> Option<String> {
        (stalled >= STALL_MAX).then(|| format!("one tick has taken {stalled:?} and is not over"))
    }

    /// Judges the process; `sample` reads its threads.
    pub(super) fn judge(&mut self, now: Timestamp, sample: impl FnOnce() -> Threads) -> Verdict {
        let silence = now.since(self.last_message);
        let most = if self.has_started { STARVED_MAX + self.later } else { START_MAX };
        if silence >= most {
            return Verdict::Hung(format!("no message for {silence:?}"));
        }
        if !self.has_started {
            return Verdict::Alive(self.last_message + START_MAX);
        }
        if silence < FIRST_SAMPLE + self.later {
            return Verdict::Alive(self.last_message + FIRST_SAMPLE + self.later);
        }
        let due = |sampled: Timestamp| (self.last_message + SILENCE_MAX + self.later).max(sampled + SAMPLE_INTERVAL);
        if let Some((sampled, threads)) = &self.sampled {
            if now < due(*sampled) {
                return Verdict::Alive(due(*sampled));
            }
            let current = sample();
            if !is_starved(threads, &current, now.since(*sampled)) {
                return Verdict::Hung(format!("no message for {silence:?}, and no thread waits for the processor"));
            }
            self.sampled = Some((now, current));
        } else {
            self.sampled = Some((now, sample()));
        }
        Verdict::Alive(due(now).min(self.last_message + STARVED_MAX + self.later))
    }
}

/// Whether a thread was runnable at both samples and ran for less than half of the time between them.
fn is_starved(before: &Threads, after: &Threads, between: Duration) -> bool {
    after.iter().any(|(id, after)| {
        let Some(before) = before.get(id) else { return false };
        before.runnable && after.runnable && after.cpu.saturating_sub(before.cpu) * 2 < between
    })
}

/// The threads of a process; empty when it is gone.
pub(super) fn threads(pid: u32) -> Threads {
    let Ok(folder) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Threads::new() };
    let ids = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{id}/stat")).ok()?;
        Some((id, parse(&stat, rustix::param::clock_ticks_per_second())?))
    })
    .collect()
}

/// Reads a line of `stat` (proc_pid_stat(5)): fields 3 (state), 14 (utime) and 15 (stime).
fn parse(stat: &str, ticks_per_second: u64) -> Option<Thread> {
    // The name of the thread is in parentheses and may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let mut times = fields.skip(10).map_while(|field| field.parse::<u64>().ok());
    let ticks = times.next()? + times.next()?;
    let cpu = Duration::from_micros(ticks * 1_000_000 / ticks_per_second.max(1));
    Some(Thread { runnable: matches!(state, "R" | "D"), cpu })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCKED: Thread = Thread { runnable: false, cpu: Duration::ZERO };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000 + ms * 1_000)
    }

    /// When a process is found to hang that was last heard at 0 ms, with these threads at each time in ms.
    fn hung_at(started: bool, mut threads: impl FnMut(u64) -> Vec<Thread>) -> Option<u64> {
        let mut watchdog = Watchdog::new(at(0));
        if started {
            watchdog.message(at(0));
        }
        let mut now = 0;
        loop {
            match watchdog.judge(at(now), || (0..).zip(threads(now)).collect()) {
                Verdict::Hung(_) => return Some(now),
                Verdict::Alive(next) => {
                    let next = next.since(at(0)).as_millis() as u64;
                    assert!(next > now, "the next check lies in the future");
                    now = next;
                }
            }
            if now > 60_000 {
                return None;
            }
        }
    }

    fn runnable(cpu_ms: u64) -> Thread {
        Thread { runnable: true, cpu: Duration::from_millis(cpu_ms) }
    }

    #[test]
    fn a_blocked_or_stopped_process_hangs_after_1200_ms() {
        assert_eq!(hung_at(true, |_| vec![BLOCKED, BLOCKED]), Some(1_200));
        assert_eq!(hung_at(true, |_| vec![]), Some(1_200), "its threads cannot be read");
    }

    #[test]
    fn a_thread_in_an_endless_loop_hangs_after_1200_ms() {
        assert_eq!(hung_at(true, |ms| vec![BLOCKED, runnable(ms)]), Some(1_200));
    }

    #[test]
    fn a_process_that_waits_for_the_processor_is_given_five_seconds() {
        assert_eq!(hung_at(true, |ms| vec![BLOCKED, runnable(ms / 10)]), Some(5_000));
        let released = |ms| if ms < 2_000 { vec![runnable(ms / 10)] } else { vec![BLOCKED] };
        assert_eq!(hung_at(true, released), Some(2_000), "it had the processor and said nothing");
    }

    #[test]
    fn a_process_has_ten_seconds_for_its_first_message() {
        assert_eq!(hung_at(false, |_| vec![BLOCKED]), Some(10_000));
    }

    #[test]
    fn a_message_starts_the_silence_anew() {
        let mut watchdog = Watchdog::new(at(0));
        watchdog.message(at(0));
        for ms in (0..10_000).step_by(1_100) {
            watchdog.message(at(ms));
            assert!(matches!(watchdog.judge(at(ms + 1_100), || Threads::from([(1, BLOCKED)])), Verdict::Alive(_)));
        }
    }

    #[test]
    fn an_idle_process_is_given_the_interval_that_it_has_announced() {
        let hung_at = |announced: Duration| {
            let mut watchdog = Watchdog::new(at(0));
            watchdog.message(at(0));
            watchdog.expect_report(announced);
            let mut now = at(0);
            while let Verdict::Alive(next) = watchdog.judge(now, || Threads::from([(1, BLOCKED)])) {
                now = next;
            }
            now.since(at(0))
        };
        assert_eq!(hung_at(Duration::from_millis(250)), Duration::from_millis(1_200));
        assert_eq!(hung_at(Duration::from_secs(2)), Duration::from_millis(2_950));
        assert_eq!(
            hung_at(Duration::from_secs(3_600)),
            Duration::from_millis(5_950),
            "the announced interval is bounded"
        );
    }

    #[test]
    fn a_tick_of_five_seconds_is_a_hang() {
        assert_eq!(Watchdog::stalled(Duration::from_millis(4_999)), None);
        assert!(Watchdog::stalled(STALL_MAX).is_some());
    }

    #[test]
    fn threads_are_read_from_the_kernel() {
        let line = "812 (a) S name) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 100 200";
        assert_eq!(parse(line, 100), Some(runnable(3_000)));
        assert_eq!(parse(&line.replace(") R", ") T"), 100), Some(Thread { runnable: false, ..runnable(3_000) }));
        assert_eq!(parse("812 (a) R 1 2", 100), None);
        assert!(threads(std::process::id()).values().any(|thread| thread.runnable), "this thread runs");
    }

    proptest! {
        /// At any progress of its threads, a silent process is found to hang 1.2 s to 5 s after its last message.
        #[test]
        fn a_silent_process_is_always_found(states in prop::collection::vec((any::<bool>(), 0..500_u64), 1..40)) {
            let mut cpu = 0;
            let mut states = states.into_iter().cycle();
            let found = hung_at(true, |_| {
                let (runnable, more) = states.next().expect("endless");
                cpu += more;
                vec![Thread { runnable, cpu: Duration::from_millis(cpu) }]
            });
            prop_assert!(found.is_some_and(|ms| (1_200..=5_000).contains(&ms)), "{:?}", found);
        }
    }
}
