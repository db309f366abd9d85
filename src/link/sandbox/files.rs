//! Access to files, by Landlock (landlock(7)).
//!
//! Owns: which files a child process may open. Does not know: system calls, users. In: an [`Access`]. Out: rules of the
//! kernel for the calling thread and those that it starts.
//!
//! Rules hold for the files and folders that exist now. A process may execute no file.

use std::env;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};

use super::{Access, Failure};

/// The newest rules that are asked for: Linux 6.12. Older kernels enforce fewer.
const RULES: ABI = ABI::V6;

/// Libraries, plugins, fonts and time zones; what libraries read to count processors and memory.
const SYSTEM: [&str; 19] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/fonts",
    "/etc/localtime",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
];
/// What the C library reads to look up names.
const NAMES: [&str; 8] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/run/systemd/resolve",
];
/// Folders of fonts and plugins in the home of the user.
const HOME: [&str; 4] = [".fonts", ".local/share/fonts", ".local/share/gstreamer-1.0", ".cache/gstreamer-1.0"];
/// Environment variables with paths of libraries, plugins and fonts, separated by colons.
const PATHS: [&str; 7] = [
    "LD_LIBRARY_PATH",
    "GST_PLUGIN_PATH",
    "GST_PLUGIN_PATH_1_0",
    "GST_PLUGIN_SYSTEM_PATH",
    "GST_PLUGIN_SYSTEM_PATH_1_0",
    "FONTCONFIG_PATH",
    "FONTCONFIG_FILE",
];

/// Restricts the calling thread, and those that it starts, to the files of `access`.
///
/// # Errors
/// The kernel does not support it.
pub(super) fn restrict(access: &Access) -> Result<(), Failure> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .scope(Scope::from_all(RULES))?;
    if !access.network {
        rules = rules.handle_access(AccessNet::from_all(RULES))?;
    }
    let mut rules = rules.create()?.add_rules(path_beneath_rules(readable(access), reading))?;
    rules = rules.add_rules(path_beneath_rules(["/dev/null"], reading | AccessFs::WriteFile))?;
    rules = rules.add_rules(path_beneath_rules(&access.write, written()))?;
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel has no Landlock".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// What may be done in the folder of recordings: files and folders are made, written, renamed and removed.
fn written() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::Refer
}

/// The files and folders that are read; those that do not exist are left out later.
fn readable(access: &Access) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    if access.network {
        paths.extend(NAMES.iter().map(PathBuf::from));
    }
    if let Some(home) = env::var_os("HOME").filter(|home| !home.is_empty()) {
        paths.extend(HOME.iter().map(|folder| PathBuf::from(&home).join(folder)));
    }
    if let Some(shared) = env::var_os("XDG_DATA_HOME").filter(|shared| !shared.is_empty()) {
        paths.extend(["fonts", "gstreamer-1.0"].map(|folder| PathBuf::from(&shared).join(folder)));
    }
    let lists = PATHS.iter().filter_map(env::var_os);
    paths.extend(lists.flat_map(|list| env::split_paths(&list).collect::<Vec<_>>()).filter(|path| path.is_absolute()));
    // For the names of functions in the log of a panic.
    paths.extend(env::current_exe());
    paths.extend(access.read.clone());
    paths
}
