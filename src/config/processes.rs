//! Section `[processes]`: the memory of child processes.
//!
//! Owns: the keys and their bounds. Does not know: how a process is limited.

use serde::{Deserialize, Serialize};

use super::check::Findings;

/// The smallest limit in MiB: an idle process with its libraries and the stacks of its threads.
const MEMORY_MIN_MIB: u32 = 256;

/// Section `[processes]`: the most memory of a child process in MiB, without shared libraries and files. A process that
/// needs more ends, and is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Processes {
    /// Of the mixer of a room.
    pub mixer_memory_mib: u32,
    /// Of an input.
    pub input_memory_mib: u32,
    /// Of a recording or broadcast.
    pub output_memory_mib: u32,
}

impl Default for Processes {
    fn default() -> Self {
        Self { mixer_memory_mib: 4096, input_memory_mib: 1536, output_memory_mib: 1024 }
    }
}

impl Processes {
    pub(super) fn check(&self, findings: &mut Findings) {
        for (key, value) in [
            ("processes.mixer_memory_mib", self.mixer_memory_mib),
            ("processes.input_memory_mib", self.input_memory_mib),
            ("processes.output_memory_mib", self.output_memory_mib),
        ] {
            findings.require(
                value >= MEMORY_MIN_MIB,
                key,
                format!("{value} MiB are too few: at least {MEMORY_MIN_MIB}"),
            );
        }
    }
}
