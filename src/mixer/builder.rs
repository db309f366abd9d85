//! The builder: makes decoders and encoders on a thread of its own.
//!
//! Owns: the thread and its bounded queue of jobs. Does not know: what is built, who waits for it. In:
//! [`Builder::build`], which never waits. Out: [`Building`], which holds the result when it is there.
//!
//! Making a pipeline may load a plugin from a slow disk. The threads that read the link and compose pictures must not
//! wait for that: they would stop the sound, and the process would look as if it hung.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use parking_lot::Mutex;

use crate::codec::CodecError;

/// Jobs that may wait. Each source and each stream has at most one that is still wanted.
const JOBS_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs one job after the other. It ends when its builder is dropped and its queue is empty. It is not
/// joined, because loading a plugin may hang.
#[derive(Debug)]
pub struct Builder {
    jobs: SyncSender<Job>,
}

/// Something that is being built. Dropping it cancels a job that has not begun.
#[derive(Debug)]
pub struct Building<T>(Arc<Mutex<Option<Result<T, CodecError>>>>);

impl Builder {
    /// Starts the thread with this name.
    pub fn new(name: &str) -> Self {
        let (jobs, queue): (SyncSender<Job>, Receiver<Job>) = sync_channel(JOBS_MAX);
        thread::Builder::new()
            .name(name.into())
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .expect("a process that cannot start a thread cannot go on");
        Self { jobs }
    }

    /// Queues a job; `done` is called on the builder's thread when the result is there.
    ///
    /// # Errors
    /// [`CodecError::BuilderFull`]: too many jobs wait.
    pub fn build<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> Result<T, CodecError> + Send + 'static,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<Building<T>, CodecError> {
        let result = Arc::new(Mutex::new(None));
        let wanted = Arc::downgrade(&result);
        let job = move || {
            if wanted.strong_count() == 0 {
                return;
            }
            let made = make();
            // What is no longer wanted is dropped here.
            if let Some(result) = wanted.upgrade() {
                *result.lock() = Some(made);
                done();
            }
        };
        self.jobs.try_send(Box::new(job)).map_err(|_| CodecError::BuilderFull)?;
        Ok(Building(result))
    }
}

impl<T> Building<T> {
    /// Whether [`take`](Self::take) has a result.
    pub fn is_done(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The result, once it is there.
    pub fn take(&self) -> Option<Result<T, CodecError>> {
        self.0.lock().take()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub(in crate::mixer) const PATIENCE: Duration = Duration::from_secs(20);

    /// Keeps a builder's thread busy until the sender is dropped.
    pub(in crate::mixer) fn block(builder: &Builder) -> SyncSender<()> {
        let (open, closed) = sync_channel::<()>(0);
        let job = move || {
            // Ends with an error when the sender is dropped.
            let _ = closed.recv();
        };
        builder.jobs.try_send(Box::new(job)).expect("room for a job");
        open
    }

    #[test]
    fn a_result_is_there_when_done_is_called() {
        let builder = Builder::new("test");
        let gate = block(&builder);
        let (done, notified) = sync_channel(1);
        let building = builder.build(|| Ok(7), move || done.send(()).expect("the test waits")).expect("room");
        assert!(!building.is_done() && building.take().is_none(), "the thread is busy");
        drop(gate);
        notified.recv_timeout(PATIENCE).expect("built");
        assert!(building.is_done() && matches!(building.take(), Some(Ok(7))));
        assert!(building.take().is_none(), "a result is taken once");
    }

    #[test]
    fn a_job_that_is_no_longer_wanted_is_not_begun() {
        let builder = Builder::new("test");
        let gate = block(&builder);
        let (ran, seen) = sync_channel(2);
        let cancelled = ran.clone();
        drop(builder.build(move || Ok(cancelled.send("cancelled")), || {}).expect("room"));
        let _wanted = builder.build(move || Ok(ran.send("wanted")), || {}).expect("room");
        drop(gate);
        assert_eq!(seen.recv_timeout(PATIENCE), Ok("wanted"));
    }

    #[test]
    fn a_full_queue_refuses_a_job() {
        let builder = Builder::new("test");
        let _gate = block(&builder);
        let jobs: Vec<_> = (0..=JOBS_MAX + 1).map(|_| builder.build(|| Ok(()), || {})).collect();
        assert!(matches!(jobs.last(), Some(Err(CodecError::BuilderFull))));
    }
}
