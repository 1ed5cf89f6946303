//! Drops librdkafka's clients on a separate thread. Dropping a client leaves the
//! group, waits for requests and joins its threads. None of that has a deadline,
//! and it takes long while the brokers are away. The loop must continue meanwhile.

use std::ops::Deref;
use std::sync::mpsc::{RecvTimeoutError, SendError, Sender, channel};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs one after another on its own thread. The thread ends with the last
/// handle.
#[derive(Clone)]
pub struct Reaper(Sender<Job>);

impl Reaper {
    /// Starts the thread.
    pub fn start() -> Reaper {
        let (sender, jobs) = channel::<Job>();
        // If the thread cannot start, each caller runs its own job.
        let _ = std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || jobs.into_iter().for_each(|job| job()));
        Reaper(sender)
    }

    /// Runs a job after all earlier ones.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if let Err(SendError(job)) = self.0.send(Box::new(job)) {
            job();
        }
    }

    /// Wraps a client, so that dropping it anywhere drops it on the thread.
    pub fn keep<T: Send + 'static>(&self, client: T) -> Reaped<T> {
        Reaped { client: Some(client), reaper: self.clone() }
    }

    /// Waits until all jobs are done, including jobs that they have added. Returns
    /// whether that was within the limit.
    pub fn wait(&self, limit: Duration) -> bool {
        let (done, finished) = channel::<()>();
        let again = self.clone();
        self.run(move || again.run(move || drop(done)));
        finished.recv_timeout(limit) != Err(RecvTimeoutError::Timeout)
    }
}

/// A client that is dropped on the thread of a [`Reaper`].
pub struct Reaped<T: Send + 'static> {
    client: Option<T>,
    reaper: Reaper,
}

impl<T: Send + 'static> Deref for Reaped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.client.as_ref().expect("it is taken when dropped, not before")
    }
}

impl<T: Send + 'static> Drop for Reaped<T> {
    fn drop(&mut self) {
        let client = self.client.take();
        self.reaper.run(move || drop(client));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;
    use std::sync::{Arc, Mutex};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    /// A client whose drop blocks until the test allows it, and then reports its
    /// name.
    struct Slow {
        may_end: Mutex<Receiver<()>>,
        ended: Sender<&'static str>,
        name: &'static str,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.may_end.get_mut().unwrap().recv_timeout(LONG);
            let _ = self.ended.send(self.name);
        }
    }

    fn slow(name: &'static str, ended: &Sender<&'static str>) -> (Sender<()>, Slow) {
        let (let_end, may_end) = channel();
        let may_end = Mutex::new(may_end);
        (let_end, Slow { may_end, ended: ended.clone(), name })
    }

    #[test]
    fn hanging_client_blocks_nobody_and_wait_has_a_deadline() {
        let reaper = Reaper::start();
        let (ended, endings) = channel();
        let (let_end, client) = slow("client", &ended);
        drop(reaper.keep(client));
        assert_eq!(endings.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
        assert!(!reaper.wait(SHORT));
        let_end.send(()).unwrap();
        assert!(reaper.wait(LONG));
        assert_eq!(endings.try_recv(), Ok("client"));
    }

    #[test]
    fn last_shared_handle_drops_the_client_on_the_reaper() {
        let reaper = Reaper::start();
        let (ended, endings) = channel();
        let (let_end, client) = slow("shared", &ended);
        let ours = Arc::new(reaper.keep(client));
        let theirs = ours.clone();
        reaper.run(move || drop(ours));
        assert!(reaper.wait(LONG));
        drop(theirs);
        assert!(!reaper.wait(SHORT));
        let_end.send(()).unwrap();
        assert!(reaper.wait(LONG));
        assert_eq!(endings.try_recv(), Ok("shared"));
    }

    #[test]
    fn wait_includes_clients_dropped_by_a_job() {
        let reaper = Reaper::start();
        let (ended, endings) = channel();
        let (let_end, client) = slow("inner", &ended);
        let (begin, may_begin) = channel::<()>();
        let client = reaper.keep(client);
        reaper.run(move || {
            let _ = may_begin.recv_timeout(SHORT);
            drop(client);
        });
        // Called before the client is dropped.
        assert!(!reaper.wait(4 * SHORT));
        drop(begin);
        let_end.send(()).unwrap();
        assert!(reaper.wait(LONG));
        assert_eq!(endings.try_recv(), Ok("inner"));
    }
}
