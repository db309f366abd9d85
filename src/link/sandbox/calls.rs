//! System calls, by seccomp (seccomp(2)).
//!
//! Owns: which system calls of a child process are refused. Does not know: files, users. In: whether the process opens
//! connections. Out: filters of the kernel.
//!
//! The lists name what is refused, because the libraries of codecs differ from machine to machine in what they need.
//! A call that libraries try gets an error, so that they continue without it. A call that nothing legitimate makes ends
//! the process.

use std::collections::BTreeMap;
use std::process;

use libc::c_long;
use seccompiler::{
    BpfProgram, BpfProgramRef, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::Failure;

/// Set in the numbers of system calls of the ABI x32, which the kernel may offer beside x86-64.
#[cfg(target_arch = "x86_64")]
const X32: c_long = 0x4000_0000;

/// Ends the process: administration of the kernel and the machine, and code of other processes.
pub(super) const FATAL: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_writev,
    libc::SYS_reboot,
    libc::SYS_swapoff,
    libc::SYS_swapon,
];

/// Refused with `EPERM`.
pub(super) const REFUSED: &[c_long] = &[
    // Programs and processes. `clone` is for threads only, see `conditions`.
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_ptrace,
    libc::SYS_tkill,
    // Namespaces and mounts.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Users and capabilities.
    libc::SYS_capset,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    // Owners, modes and attributes of files, which Landlock does not limit; devices.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    libc::SYS_fanotify_init,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_lremovexattr,
    libc::SYS_lsetxattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_quotactl,
    libc::SYS_removexattr,
    libc::SYS_setxattr,
    // Large parts of the kernel that media does not need, with many past flaws.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    // Memory and queues that are shared with other processes.
    libc::SYS_mq_open,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_shmget,
    // The machine.
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// Refused as well in a process that opens no connections. A connected socket that it has inherited could be connected
/// to another address. `socketpair` stays, which many libraries need.
pub(super) const NETWORK: &[c_long] =
    &[libc::SYS_accept, libc::SYS_accept4, libc::SYS_bind, libc::SYS_connect, libc::SYS_listen, libc::SYS_socket];

/// Adds the filters to the calling thread, or to all threads of the process, as `apply` does.
///
/// # Errors
/// The kernel or the architecture does not support it.
pub(super) fn restrict(
    network: bool,
    apply: impl Fn(BpfProgramRef<'_>) -> seccompiler::Result<()>,
) -> Result<(), Failure> {
    let mut refused = conditions()?;
    refused.extend(REFUSED.iter().map(|call| (*call, Vec::new())));
    if network {
        refused.extend(families()?);
    } else {
        refused.extend(NETWORK.iter().map(|call| (*call, Vec::new())));
    }
    // Calls that have a number of their own in the ABI x32, `execve` among them.
    #[cfg(target_arch = "x86_64")]
    refused.extend((512..=547).map(|call| (call | X32, Vec::new())));
    let fatal = FATAL.iter().map(|call| (*call, Vec::new())).collect();
    // The arguments of `clone3` are in memory, where a filter cannot read them. Without it, the C library uses `clone`.
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let error = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let filters = [
        compile(absent, error(libc::ENOSYS))?,
        compile(fatal, SeccompAction::KillProcess)?,
        compile(refused, error(libc::EPERM))?,
    ];
    for filter in &filters {
        apply(filter)?;
    }
    Ok(())
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Calls that are refused with some arguments.
fn conditions() -> Result<Rules, Failure> {
    let other_process = || {
        // A process id of an argument, or 0 for this process.
        let own = u64::from(process::id());
        rule(&[(0, SeccompCmpOp::Ne, own), (0, SeccompCmpOp::Ne, 0)])
    };
    let signal = || rule(&[(0, SeccompCmpOp::Ne, u64::from(process::id()))]);
    let terminal = [libc::TIOCSTI, libc::TIOCLINUX];
    let terminal: Result<Vec<_>, _> =
        terminal.into_iter().map(|request| rule(&[(1, SeccompCmpOp::Eq, request)])).collect();
    let thread = libc::CLONE_THREAD as u64;
    Ok(BTreeMap::from([
        (libc::SYS_clone, vec![rule(&[(0, SeccompCmpOp::MaskedEq(thread), 0)])?]),
        // Input for the terminal that the server was started from.
        (libc::SYS_ioctl, terminal?),
        (libc::SYS_kill, vec![signal()?]),
        (libc::SYS_tgkill, vec![signal()?]),
        (libc::SYS_rt_sigqueueinfo, vec![signal()?]),
        (libc::SYS_rt_tgsigqueueinfo, vec![signal()?]),
        (libc::SYS_prlimit64, vec![other_process()?]),
    ]))
}

/// Sockets that a process with connections may not open: all but IP, and but the list of addresses of this machine,
/// which looking up names needs.
fn families() -> Result<Rules, Failure> {
    let [ipv4, ipv6, netlink] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| family as u64);
    let others = rule(&[(0, SeccompCmpOp::Ne, ipv4), (0, SeccompCmpOp::Ne, ipv6), (0, SeccompCmpOp::Ne, netlink)])?;
    let route = u64::from(libc::NETLINK_ROUTE.unsigned_abs());
    let other_netlink = rule(&[(0, SeccompCmpOp::Eq, netlink), (2, SeccompCmpOp::Ne, route)])?;
    // IP packets with a header of one's own; they need a capability too.
    let raw = rule(&[(1, SeccompCmpOp::MaskedEq(0xf), libc::SOCK_RAW as u64), (0, SeccompCmpOp::Ne, netlink)])?;
    Ok(BTreeMap::from([(libc::SYS_socket, vec![others, other_netlink, raw])]))
}

/// A rule that applies if all of these hold: index of an argument, comparison, value. Arguments are 32 bits wide.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, Failure> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        .map(|(index, comparison, value)| {
            SeccompCondition::new(*index, SeccompCmpArgLen::Dword, comparison.clone(), *value)
        })
        .collect();
    Ok(SeccompRule::new(conditions?)?)
}

/// A filter with this action for some calls; all others are allowed.
fn compile(rules: Rules, action: SeccompAction) -> Result<BpfProgram, Failure> {
    #[cfg(target_arch = "x86_64")]
    let rules = with_x32(rules);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

/// The same calls by their numbers of the ABI x32.
#[cfg(target_arch = "x86_64")]
fn with_x32(mut rules: Rules) -> Rules {
    let twins: Vec<_> = rules.keys().map(|call| (call | X32, Vec::new())).collect();
    rules.extend(twins);
    rules
}
