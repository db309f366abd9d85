//! The environment of child processes.
//!
//! Owns: the list of variables that a child process inherits. Does not know: what a variable contains, how processes
//! are started. In: the environment of the serving process. Out: the part of it that a child process needs.
//!
//! A child process runs C code on bytes from the network. The environment of the serving process may hold secrets
//! (`COMMINGLE_AUTH_KEY`, credentials of an object store), and `/proc/PID/environ` stays readable for as long as the
//! process runs. Therefore the list says what is inherited, not what is removed.

use std::ffi::{OsStr, OsString};

/// Settings of glibc's allocator (mallopt(3)) for child processes. Pictures are mapped memory of their own, which goes
/// back to the system when it is freed, and threads share two arenas: an idle mixer keeps little more than it needs.
pub(super) const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Variables inherited by name.
const NAMES: [&str; 11] = [
    // Programs, folders and caches: fonts, GStreamer's registry, ORC's executable memory.
    "PATH",
    "HOME",
    "TMPDIR",
    // Shared libraries that are installed outside the system's folders.
    "LD_LIBRARY_PATH",
    "LANG",
    "TZ",
    // The log filter, and what a panic prints.
    "COMMINGLE_LOG",
    "RUST_BACKTRACE",
    // Certificates that outputs and inputs trust (rustls-native-certs).
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    // The resolver of the C library.
    "RES_OPTIONS",
];

/// Variables inherited by the beginning of their names.
const PREFIXES: [&str; 4] = ["LC_", "GST_", "XDG_", "FONTCONFIG_"];

/// The part of an environment that a child process inherits.
pub(super) fn inherited(
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    environment.filter(|(name, _)| is_inherited(name))
}

fn is_inherited(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::link::ToMixer;
    use crate::link::input::ToInput;
    use crate::link::output::ToOutput;
    use crate::link::sandbox::Access;
    use crate::process::tests::Recorder;
    use crate::process::{ProcessCommand, start, start_with};

    /// Set for the process that takes the part of the serving process.
    const SERVER: &str = "TEST_SERVING_PROCESS";
    /// The exit code of that process when all child processes were as they should be.
    const CHECKED: i32 = 42;
    /// Values of these variables must not reach a child process.
    const SECRETS: [&str; 6] = [
        "COMMINGLE_AUTH_KEY",
        "COMMINGLE_UPLOAD_SECRET_ACCESS_KEY",
        "COMMINGLE_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "LD_PRELOAD_KEY",
    ];
    const NEEDED: [&str; 4] = ["COMMINGLE_LOG", "GST_DEBUG", "LC_ALL", "SSL_CERT_FILE"];

    /// Runs as a process of its own, because the environment of this one cannot be changed while tests run.
    #[test]
    fn mixers_outputs_and_inputs_inherit_no_secret() {
        let mut server = Command::new(std::env::current_exe().expect("the path of this program"));
        server.args(["--exact", "process::environment::tests::serving_process", "--nocapture"]).env(SERVER, "1");
        for name in SECRETS {
            server.env(name, "s3cret");
        }
        for name in NEEDED {
            server.env(name, "needed");
        }
        let output = server.output().expect("this program starts");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(CHECKED), "{text}");
    }

    /// The body of [`mixers_outputs_and_inputs_inherit_no_secret`].
    #[tokio::test]
    async fn serving_process() {
        if std::env::var_os(SERVER).is_none() {
            return;
        }
        let command = ProcessCommand {
            program: "/bin/sleep".into(),
            arguments: vec!["60".into()],
            ceiling: None,
            access: Access::default(),
        };
        let (events, _received) = tokio::sync::mpsc::channel(4);
        let listener = || Recorder(events.clone());
        let mixer = start::<ToMixer>(&command, listener()).expect("starts");
        let output = start::<ToOutput>(&command, listener()).expect("starts");
        let input = start_with::<ToInput>(&command, std::process::Stdio::null(), listener()).expect("starts");
        for pid in [mixer.pid, output.pid, input.pid] {
            let environment = environment_of(pid).await;
            // Children hold the output of this process, and the test waits for its end.
            let killed = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::KILL));
            assert_eq!(killed, Some(Ok(())));
            let environment = String::from_utf8_lossy(&environment);
            assert!(!environment.contains("s3cret"), "{environment:?}");
            for name in NEEDED {
                assert!(environment.contains(&format!("{name}=needed\0")), "{name} is not in {environment:?}");
            }
        }
        drop((mixer, output, input));
        std::process::exit(CHECKED);
    }

    /// The environment of a child process. The kernel tells the parent of `execve` before the new environment can be
    /// read; until then the file is empty.
    async fn environment_of(pid: u32) -> Vec<u8> {
        for _ in 0..5_000 {
            let read = std::fs::read(PathBuf::from(format!("/proc/{pid}/environ"))).expect("the child runs");
            if !read.is_empty() {
                return read;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("the child has no environment");
    }

    #[test]
    fn names_that_only_resemble_an_inherited_one_are_removed() {
        for name in ["PATH", "LC_ALL", "LANG", "GST_PLUGIN_PATH", "XDG_CACHE_HOME", "FONTCONFIG_FILE", "RUST_BACKTRACE"]
        {
            assert!(is_inherited(OsStr::new(name)), "{name}");
        }
        for name in ["PATH_TO_KEY", "COMMINGLE_LOG_KEY", "MY_GST_TOKEN", "gst_debug", "HOMEPAGE", "http_proxy", ""] {
            assert!(!is_inherited(OsStr::new(name)), "{name}");
        }
    }
}
