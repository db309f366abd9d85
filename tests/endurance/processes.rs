//! What the processes of a server use: memory, descriptors, threads, by process type.
//!
//! Owns: reading of proc(5). Does not know: servers. The id of a process goes in, [`Usage`]s come out.

use std::collections::BTreeMap;
use std::fs;

/// What one process uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) pid: u32,
    /// `serve`, `mixer`, `output` or `input`.
    pub(crate) role: String,
    /// Resident memory in KiB.
    pub(crate) rss_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

/// What a process and all of its descendants use; those that end meanwhile are left out.
pub(crate) fn usages(pid: u32) -> Vec<Usage> {
    let mut all: Vec<Usage> = usage(pid).into_iter().collect();
    all.extend(children(pid).into_iter().flat_map(usages));
    all
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| -> Option<u64> {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse().ok()
    };
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
    let role = ["serve", "mixer", "output", "input"].into_iter().find(|role| arguments.contains(&role.as_bytes()));
    Some(Usage {
        pid,
        role: role.unwrap_or("other").to_owned(),
        rss_kib: number("VmRSS:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        threads: number("Threads:")? as usize,
    })
}

/// Processes, descriptors and threads of one process type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) processes: usize,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

/// The counts by process type.
pub(crate) fn counts(usages: &[Usage]) -> BTreeMap<String, Counts> {
    let mut all = BTreeMap::<String, Counts>::new();
    for usage in usages {
        let counts = all.entry(usage.role.clone()).or_default();
        counts.processes += 1;
        counts.descriptors += usage.descriptors;
        counts.threads += usage.threads;
    }
    all
}

/// The counts that have grown, as text; empty if none has.
pub(crate) fn growth(before: &BTreeMap<String, Counts>, now: &BTreeMap<String, Counts>) -> Vec<String> {
    let mut grown = Vec::new();
    for (role, now) in now {
        let before = before.get(role).copied().unwrap_or_default();
        if now.processes > before.processes || now.descriptors > before.descriptors || now.threads > before.threads {
            grown.push(format!("{role}: {before:?} before, {now:?} now"));
        }
    }
    grown
}
