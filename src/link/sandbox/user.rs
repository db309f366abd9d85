//! The user and the capabilities of a child process (credentials(7), capabilities(7)).
//!
//! Owns: which user a process becomes, and which capabilities are left. Does not know: files, system calls. In: whether
//! it opens files of the operator. Out: credentials of the calling thread and those that it starts.
//!
//! Files of the operator belong to any user. A process that opens some, started as root, stays root with no other
//! capability than to open them; Landlock limits it to one folder.

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::Failure;

/// The user and group `nobody`, who own no files.
const NOBODY: u32 = 65_534;

/// Gives up root for `nobody`, and all capabilities; with `needs_owner`, root stays and can open files of all users.
///
/// # Errors
/// The kernel refuses, for example because a container has no user `nobody`.
pub(super) fn restrict(needs_owner: bool) -> Result<(), Failure> {
    let root = geteuid().is_root();
    let changed = if root && !needs_owner { become_nobody() } else { Ok(()) };
    let left = if root && needs_owner { CapabilitySet::DAC_OVERRIDE } else { CapabilitySet::empty() };
    // Fails on kernels without ambient capabilities, which have none to clear.
    let _ = clear_ambient_capability_set();
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() })?;
    changed
}

fn become_nobody() -> Result<(), Failure> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(())
}
