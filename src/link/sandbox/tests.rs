#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use libc::{c_long, c_void};
use rustix::thread::{CapabilitySet, capabilities};

use super::*;

/// Set for the process that enters the sandbox: the path of a folder of the test.
const PROBE: &str = "TEST_SANDBOX_PROBE";
/// Set besides to the number of a system call that ends it.
const CALL: &str = "TEST_SANDBOX_CALL";
/// The exit code of a probe that was denied everything that it must not do, and could do everything else.
const CONTAINED: i32 = 42;

/// Every kind of child process, with what it needs. The folders are below `folder`.
fn kinds(folder: &Path) -> [(&'static str, Access); 6] {
    [
        ("mixer", Access::default()),
        ("recording", Access::writing(folder.join("recordings"))),
        ("broadcast", Access::network()),
        ("hls", Access::default()),
        ("file", Access::reading(folder.join("media"))),
        ("stream", Access::network()),
    ]
}

fn run_probe(folder: &Path, access: &Access, call: Option<c_long>) -> Output {
    let mut probe = Command::new(std::env::current_exe().expect("the path of this program"));
    probe.args(["--exact", "link::sandbox::tests::probe", "--nocapture"]).env(PROBE, folder).envs([access.variable()]);
    if let Some(call) = call {
        probe.env(CALL, call.to_string());
    }
    probe.output().expect("this program starts")
}

fn test_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("media")).expect("made");
    fs::write(folder.path().join("media/clip"), "clip").expect("written");
    fs::write(folder.path().join("key"), "s3cret").expect("written");
    folder
}

#[test]
fn code_in_a_child_process_is_denied_everything_but_its_own_media() {
    let folder = test_folder();
    for (kind, access) in kinds(folder.path()) {
        let output = run_probe(folder.path(), &access, None);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(CONTAINED), "{kind}: {text}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("key")).expect("readable here"), "s3cret");
}

#[test]
fn calls_that_administer_the_machine_end_the_process() {
    let folder = test_folder();
    for call in calls::FATAL {
        let output = run_probe(folder.path(), &Access::network(), Some(*call));
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "system call {call}: {output:?}");
    }
}

#[test]
fn an_access_passes_by_the_environment_unchanged() {
    for (kind, access) in kinds(Path::new("/srv/data")) {
        let (_, text) = access.variable();
        assert_eq!(serde_json::from_str::<Access>(&text).expect("JSON"), access, "{kind}");
    }
}

#[test]
fn this_machine_supports_every_part_of_the_sandbox_and_the_attempt_restricts_only_its_thread() {
    let Support { files, calls, .. } = support();
    assert_eq!((files, calls), (Ok(()), Ok(())));
    assert!(fs::read_to_string("/etc/passwd").is_ok() && Command::new("/bin/true").status().is_ok());
}

/// The body of the tests above: the process in the sandbox.
#[test]
fn probe() {
    let Some(folder) = std::env::var_os(PROBE).map(PathBuf::from) else { return };
    let access = Access::inherited();
    // A connection that an encoder of RTMP has opened, as such a process inherits it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = listener.local_addr().expect("bound");
    let connected = std::net::TcpStream::connect(address).expect("connected");
    enter(&access);
    if let Ok(call) = std::env::var(CALL) {
        let _ended_here = call_with(call.parse().expect("a number"), [u64::MAX; 5]);
        panic!("the process still runs");
    }
    let mut wrong: Vec<String> = Vec::new();
    let mut check = |what: &str, as_expected: bool| {
        if !as_expected {
            wrong.push(format!("{what}: {}", io::Error::last_os_error()));
        }
    };
    let denied = |result: io::Result<()>| result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);

    // Files.
    let parent = format!("/proc/{}/environ", rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get()));
    let key = folder.join("key");
    for path in [key.as_path(), Path::new("/etc/passwd"), Path::new("/etc/shadow"), Path::new(&parent)] {
        check(&format!("read {}", path.display()), denied(fs::read(path).map(drop)));
    }
    check("list the folder of the test", denied(fs::read_dir(&folder).map(drop)));
    check("list /root", denied(fs::read_dir("/root").map(drop)));
    let beside = std::env::temp_dir().join(format!("commingle-probe-{}", std::process::id()));
    check("write a file in /tmp", denied(fs::write(&beside, "x")));
    check("make a folder in /tmp", denied(fs::create_dir(&beside)));
    check("write a file of the test", denied(fs::write(&key, "x")));
    check("remove a file", denied(fs::remove_file(&key)));
    check("rename a file", denied(fs::rename(&key, folder.join("other"))));
    check("link a file", denied(std::os::unix::fs::symlink("/etc/passwd", folder.join("media/link"))));
    // The kernel writes no program that runs, for whatever user.
    check("write the own binary", fs::File::options().write(true).open("/proc/self/exe").is_err());
    check("read plugins and fonts", fs::read_dir("/usr/share").is_ok());
    check("read its memory use", fs::read_to_string("/proc/self/statm").is_ok());
    let clip = fs::read(folder.join("media/clip"));
    check("the media folder", clip.is_ok() == access.read.is_some());
    let recordings = folder.join("recordings");
    let recorded = fs::write(recordings.join("draft"), "x")
        .and_then(|()| fs::rename(recordings.join("draft"), recordings.join("file")))
        .and_then(|()| fs::create_dir(recordings.join("folder")))
        .and_then(|()| fs::remove_file(recordings.join("file")));
    check("the folder of recordings", recorded.is_ok() == access.write.is_some());

    // System calls.
    for call in calls::REFUSED {
        check(&format!("system call {call}"), is_refused(call_with(*call, [0; 5])));
    }
    for call in [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept4] {
        let result = call_with(call, [libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0, 0, 0]);
        check(&format!("system call {call}"), is_refused(result) != access.network);
    }
    for family in [libc::AF_UNIX, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH] {
        let result = call_with(libc::SYS_socket, [family as u64, libc::SOCK_DGRAM as u64, 0, 0, 0]);
        check(&format!("a socket of family {family}"), is_refused(result));
    }
    for (family, kind, protocol) in [
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_NONBLOCK, libc::IPPROTO_ICMPV6),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
    ] {
        let result = call_with(libc::SYS_socket, [family as u64, kind as u64, protocol as u64, 0, 0]);
        check(&format!("a socket of family {family} and type {kind}"), is_refused(result));
    }
    check("socketpair", std::os::unix::net::UnixStream::pair().is_ok());
    let again = std::net::TcpStream::connect(address);
    check("a new connection", again.is_ok() == access.network);
    check("programs", Command::new("/bin/true").status().is_err());
    check("a process", is_refused(call_with(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0])));
    check("clone3", call_with(libc::SYS_clone3, [0; 5]) == Err(libc::ENOSYS));
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get()) as u64;
    check("a signal", is_refused(call_with(libc::SYS_kill, [parent, 0, 0, 0, 0])));
    check("a signal to all", is_refused(call_with(libc::SYS_kill, [u64::MAX, 0, 0, 0, 0])));
    check("a signal to itself", call_with(libc::SYS_kill, [std::process::id().into(), 0, 0, 0, 0]).is_ok());
    check("limits of others", is_refused(call_with(libc::SYS_prlimit64, [parent, 7, 0, 0, 0])));
    check("its own limits", call_with(libc::SYS_prlimit64, [0, 7, 0, 0, 0]).is_ok());
    check("the terminal", is_refused(call_with(libc::SYS_ioctl, [2, libc::TIOCSTI, 0, 0, 0])));
    #[cfg(target_arch = "x86_64")]
    {
        // `execve` and `ptrace` by their numbers of the ABI x32; a kernel without it has no such calls.
        for call in [520, 521] {
            let result = call_with(call | 0x4000_0000, [0; 5]);
            check(&format!("x32 call {call}"), matches!(result, Err(libc::EPERM | libc::ENOSYS)));
        }
    }
    check("threads", thread::spawn(|| 1).join().is_ok());
    check("memory", vec![1u8; 8 << 20].iter().all(|byte| *byte == 1));

    // Credentials.
    let left = capabilities(None).expect("readable");
    let operator = access.needs_owner() && rustix::process::geteuid().is_root();
    let expected = if operator { CapabilitySet::DAC_OVERRIDE } else { CapabilitySet::empty() };
    check("capabilities", left.permitted == expected && left.effective == expected && left.inheritable.is_empty());
    check("root", !rustix::process::geteuid().is_root() || access.needs_owner());
    check("no new privileges", rustix::thread::no_new_privs().is_ok_and(|set| set));

    assert_eq!(wrong, Vec::<String>::new());
    drop(connected);
    std::process::exit(CONTAINED);
}

fn is_refused(result: Result<c_long, i32>) -> bool {
    matches!(result, Err(libc::EPERM))
}

/// Makes a system call; returns its result or its error.
fn call_with(call: c_long, arguments: [u64; 5]) -> Result<c_long, i32> {
    let [a, b, c, d, e] = arguments.map(|argument| argument as *mut c_void);
    // SAFETY: these calls are refused before they read their arguments. Those that are allowed get numbers, and no
    // address of memory that they could write to.
    let result = unsafe { libc::syscall(call, a, b, c, d, e) };
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()) }
}
