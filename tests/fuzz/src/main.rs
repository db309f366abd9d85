//! Runs one fuzz target of commingle, named by the variable `FUZZ_TARGET`, with libFuzzer. `scripts/fuzz.sh` builds and
//! runs it. A panic, a hang, or memory of more than [`MEMORY_MAX`] ends it, and libFuzzer writes the input to a file.

#![no_main]

use std::alloc::System;
use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use cap::Cap;
use commingle::fuzz::{Fuzz, TARGETS};
use commingle::time::thread_cpu;
use libfuzzer_sys::fuzz_target;

/// CPU time in which a target must handle an input: unlike the clock, it does not count the load of the machine.
const CPU_MAX: Duration = Duration::from_secs(1);
/// Bytes of memory that a target may use at a time, together with its statics.
const MEMORY_MAX: usize = 64 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY_MAX);

fn target() -> Fuzz {
    static TARGET: OnceLock<Fuzz> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let wanted = env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(name, _)| *name == wanted);
        found.unwrap_or_else(|| panic!("there is no target `{wanted}`: {:?}", TARGETS.map(|(name, _)| name))).1
    })
}

fuzz_target!(|bytes: &[u8]| {
    let began = thread_cpu();
    target()(bytes);
    let used = thread_cpu() - began;
    assert!(used < CPU_MAX, "the target needs {used:?} for this input");
});
