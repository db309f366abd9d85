//! The memory of child processes.
//!
//! Owns: [`Ceiling`]: the limits that the kernel enforces on a process for its memory. Does not know: what the process
//! does. In: a process id. Out: nothing; a process that reaches its limit gets no memory, and ends itself.
//!
//! The limit is `RLIMIT_DATA`, which counts private writable memory, as used by allocators, pictures and stacks.
//! `RLIMIT_AS` would also count libraries and address space that is only reserved, several times as much. A cgroup
//! needs a writable one of our own, which services and containers rarely have, so it is left to them.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Limits of the memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// Most bytes of private writable memory.
    pub bytes: u64,
    /// Preference of the kernel to end this process when the machine has no memory left (`oom_score_adj`, proc(5)): 0
    /// as other processes to 1000 first.
    pub oom_score: u16,
}

impl Ceiling {
    /// Of a mixer: it is replaced within a second, and the call goes on.
    pub const fn mixer(mib: u32) -> Self {
        Self::of(mib, 400)
    }

    /// Of an input: it connects to its source again.
    pub const fn input(mib: u32) -> Self {
        Self::of(mib, 600)
    }

    /// Of a recording or broadcast: a recording has a gap.
    pub const fn output(mib: u32) -> Self {
        Self::of(mib, 200)
    }

    const fn of(mib: u32, oom_score: u16) -> Self {
        Self { bytes: (mib as u64) << 20, oom_score }
    }

    /// Limits a running process. It cannot raise the limit again.
    ///
    /// # Errors
    /// The process has ended, or the kernel refuses.
    pub(super) fn apply(self, pid: u32) -> io::Result<()> {
        let limit = Rlimit { current: Some(self.bytes), maximum: Some(self.bytes) };
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
        prlimit(Some(process.ok_or(io::ErrorKind::NotFound)?), Resource::Data, limit)?;
        fs::write(format!("/proc/{pid}/oom_score_adj"), self.oom_score.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::link::input::ToInput;
    use crate::link::sandbox::Access;
    use crate::process::tests::Recorder;
    use crate::process::{ProcessCommand, start_with};

    /// Runs a shell script as a child process with 64 MiB; returns what it writes.
    async fn output_of(script: &str) -> String {
        let (mut output, pipe) = io::pipe().expect("a pipe");
        // The limits are set just after the process has started.
        let script = format!("while [ $(ulimit -d) = unlimited ]; do sleep 0.01; done\n{script}");
        let command = ProcessCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script],
            ceiling: Some(Ceiling::input(64)),
            access: Access::default(),
        };
        let (events, _received) = mpsc::channel(4);
        let process = start_with::<ToInput>(&command, pipe, Recorder(events));
        let _process = process.expect("starts");
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).expect("text");
            text
        });
        tokio::time::timeout(Duration::from_secs(8), read).await.expect("it ends").expect("no panic")
    }

    #[tokio::test]
    async fn a_process_gets_no_more_memory_than_its_limit() {
        // `tail` keeps the last line, which never ends, in memory; so do sort and a variable of the shell.
        for (endless, what) in [
            ("tail -n 1 /dev/zero", "tail"),
            ("tr '\\0' x < /dev/zero | tail -n 1", "a pipe"),
            ("x=$(tr '\\0' x < /dev/zero); echo $x", "a variable"),
        ] {
            let text = output_of(&format!("{{ ({endless}) | wc -c; }} 2>/dev/null; echo over")).await;
            assert_eq!(text, "0\nover\n", "{what}");
        }
    }

    #[tokio::test]
    async fn a_process_cannot_raise_its_limit_and_the_kernel_ends_it_before_the_server() {
        let text = output_of("ulimit -d; ulimit -H -d; cat /proc/self/oom_score_adj").await;
        assert_eq!(text, format!("{0}\n{0}\n600\n", 64 << 10));
        let scores = [Ceiling::output(1), Ceiling::mixer(1), Ceiling::input(1)].map(|ceiling| ceiling.oom_score);
        assert!(scores.is_sorted() && scores[0] > 0, "{scores:?}");
    }
}
