//! Turns and retries: two cores carry one call at a time.
//!
//! Owns: the lock that tests take, and the tally of tests that needed a retry, with the message of each panic. The
//! tally is written to `e2e/retries.txt` in Cargo's target folder after each test, because a test program cannot run
//! code at its end; `make test` prints it.

use std::collections::BTreeSet;
use std::panic::{self, RefUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::{fs, thread};

use commingle::time::{self, Timestamp};

use crate::scenario::pictures;

/// Attempts of [`with_retries`]. The machine is shared with browsers, and a machine that stalls does not do so three
/// times in a row; a fault of the server does.
const ATTEMPTS: usize = 3;

/// Most characters of a panic's message in the tally.
const MESSAGE_MAX: usize = 400;

static TALLY: Mutex<Tally> = Mutex::new(Tally { tests: BTreeSet::new(), retried: BTreeSet::new(), panics: Vec::new() });

/// No other test of this binary runs while this is held. Its end prints how long that was.
pub(crate) struct Turn {
    began: Timestamp,
    _held: MutexGuard<'static, ()>,
}

/// Waits until no other test of this binary runs.
pub(crate) fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    static HOOK: Once = Once::new();
    HOOK.call_once(count_panics);
    let held = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { began: time::now(), _held: held }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let test = test_name();
        println!("{test} took {:.1} s", time::now().since(self.began).as_secs_f64());
        note(|tally| tally.tests.insert(test));
    }
}

/// Takes a turn and returns what the first attempt without a panic returns; the last attempt may panic.
pub(crate) fn with_retries<T>(attempt: impl Fn() -> T + RefUnwindSafe) -> T {
    let _turn = turn();
    for _ in 1..ATTEMPTS {
        if let Ok(result) = catch_unwind(&attempt) {
            return result;
        }
        println!("{} is tried again", test_name());
        note(|tally| tally.retried.insert(test_name()));
    }
    attempt()
}

/// Adds the messages of panics to the tally, and prints them as before.
fn count_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let message: String = info.to_string().chars().take(MESSAGE_MAX).collect();
        note(|tally| {
            tally.panics.push(format!("{}: {}", test_name(), message.replace('\n', " ")));
            true
        });
        print(info);
    }));
}

fn test_name() -> String {
    thread::current().name().unwrap_or("a test").to_owned()
}

struct Tally {
    tests: BTreeSet<String>,
    retried: BTreeSet<String>,
    panics: Vec<String>,
}

impl Tally {
    /// A line for each panic, then `N of M tests needed a retry: names`.
    fn summary(&self) -> String {
        let names: Vec<&str> = self.retried.iter().map(String::as_str).collect();
        let colon = if names.is_empty() { "" } else { ": " };
        let panics: String = self.panics.iter().map(|line| format!("{line}\n")).collect();
        format!("{panics}{} of {} tests needed a retry{colon}{}\n", names.len(), self.tests.len(), names.join(", "))
    }
}

fn note(change: impl FnOnce(&mut Tally) -> bool) {
    let mut tally = TALLY.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut tally);
    let folder = pictures();
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("retries.txt"), tally.summary()))
        .unwrap_or_else(|error| println!("the tally of retries cannot be written: {error}"));
}

#[test]
fn the_summary_counts_and_names_retried_tests() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let none = Tally { tests: set(&["a", "b"]), retried: set(&[]), panics: Vec::new() };
    assert_eq!(none.summary(), "0 of 2 tests needed a retry\n");
    let panics = vec!["a: late".to_owned()];
    let some = Tally { tests: set(&["a", "b", "c"]), retried: set(&["c", "a"]), panics };
    assert_eq!(some.summary(), "a: late\n2 of 3 tests needed a retry: a, c\n");
}
