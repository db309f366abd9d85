//! Turns and retries: two cores carry one call at a time.
//!
//! Owns: the lock that tests take, and the tally of tests that needed a retry. The tally is written to
//! `e2e/retries.txt` in Cargo's target folder after each test, because a test program cannot run code at its end;
//! `make test` prints it.

use std::collections::BTreeSet;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, thread};

use commingle::time::{self, Timestamp};

use crate::scenario::pictures;

/// Attempts of [`with_retries`]. The machine is shared with browsers, and a machine that stalls does not do so three
/// times in a row; a fault of the server does.
const ATTEMPTS: usize = 3;

static TALLY: Mutex<Tally> = Mutex::new(Tally { tests: BTreeSet::new(), retried: BTreeSet::new() });

/// No other test of this binary runs while this is held. Its end prints how long that was.
pub(crate) struct Turn {
    began: Timestamp,
    _held: MutexGuard<'static, ()>,
}

/// Waits until no other test of this binary runs.
pub(crate) fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
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

fn test_name() -> String {
    thread::current().name().unwrap_or("a test").to_owned()
}

struct Tally {
    tests: BTreeSet<String>,
    retried: BTreeSet<String>,
}

impl Tally {
    /// One line: `N of M tests needed a retry: names`.
    fn summary(&self) -> String {
        let names: Vec<&str> = self.retried.iter().map(String::as_str).collect();
        let colon = if names.is_empty() { "" } else { ": " };
        format!("{} of {} tests needed a retry{colon}{}\n", names.len(), self.tests.len(), names.join(", "))
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
    let none = Tally { tests: set(&["a", "b"]), retried: set(&[]) };
    assert_eq!(none.summary(), "0 of 2 tests needed a retry\n");
    let some = Tally { tests: set(&["a", "b", "c"]), retried: set(&["c", "a"]) };
    assert_eq!(some.summary(), "2 of 3 tests needed a retry: a, c\n");
}
