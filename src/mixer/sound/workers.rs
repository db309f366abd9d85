//! Threads that share the work of large ticks.
//!
//! Owns: the thread pool of the audio, which is separate from that of the video, and the priority of audio threads.
//! Does not know: the work. In: items and a function. Out: the changed items. The pool is started with the first large
//! tick: small rooms have none.

use std::cell::OnceCell;
use std::time::Duration;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Work of a tick above which it is shared: less is done before the other threads have woken.
const LARGE: Duration = Duration::from_millis(2);
/// Nice value of audio threads relative to the others.
const NICE: i32 = -10;

/// The threads for large ticks.
#[derive(Debug)]
pub(super) struct Workers {
    threads: usize,
    /// None in it if the pool could not be started.
    pool: OnceCell<Option<ThreadPool>>,
}

impl Workers {
    /// At most this number of threads.
    pub(super) fn new(threads: u32) -> Self {
        Self { threads: threads as usize, pool: OnceCell::new() }
    }

    /// Calls `work` for each item, in any order; returns when all are done. `each`: the estimated time of one item.
    pub(super) fn run<T: Send>(&self, items: &mut [T], each: Duration, work: impl Fn(&mut T) + Send + Sync) {
        let large = each * items.len() as u32 >= LARGE;
        match if large { self.pool() } else { None } {
            Some(pool) => pool.install(|| items.par_iter_mut().for_each(work)),
            None => items.iter_mut().for_each(work),
        }
    }

    fn pool(&self) -> Option<&ThreadPool> {
        let start = || {
            if self.threads < 2 {
                return None;
            }
            let builder = ThreadPoolBuilder::new()
                .num_threads(self.threads)
                .thread_name(|i| format!("audio-{i}"))
                .start_handler(|_| prefer_this_thread());
            match builder.build() {
                Ok(pool) => Some(pool),
                Err(error) => {
                    tracing::warn!(%error, "cannot start audio threads: one thread mixes alone");
                    None
                }
            }
        };
        self.pool.get_or_init(start).as_ref()
    }
}

/// Gives this thread a higher priority than threads that decode and encode video, where the system permits it
/// (`CAP_SYS_NICE`, or `LimitNICE=` of systemd).
pub(super) fn prefer_this_thread() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "audio thread has normal priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_changed_once_by_one_thread_or_by_several() {
        for threads in [1, 3] {
            let workers = Workers::new(threads);
            for (count, each) in [(0, LARGE), (1, LARGE), (100, Duration::ZERO), (100, LARGE)] {
                let mut items: Vec<u32> = (0..count).collect();
                workers.run(&mut items, each, |item| *item += 1_000);
                assert!(items.iter().copied().eq(1_000..1_000 + count), "{threads} threads, {count} items");
            }
        }
    }

    #[test]
    fn threads_are_started_with_the_first_large_tick() {
        let workers = Workers::new(2);
        workers.run(&mut [0; 3], LARGE / 10, |item| *item += 1);
        assert!(workers.pool.get().is_none());
        workers.run(&mut [0; 3], LARGE, |item| *item += 1);
        assert!(matches!(workers.pool.get(), Some(Some(_))));
    }
}
