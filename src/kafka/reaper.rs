//! Where librdkafka's clients end. To drop one is to leave the group, to wait
//! for requests, and to join its threads. None of it has a deadline, and all of
//! it takes long while the brokers are away. The loop must go on meanwhile.

use std::ops::Deref;
use std::sync::mpsc::{RecvTimeoutError, SendError, Sender, channel};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Hands work to a thread of its own, one piece after another. The thread ends
/// with the last handle.
#[derive(Clone)]
pub struct Reaper(Sender<Job>);

impl Reaper {
    /// Starts the thread.
    pub fn start() -> Reaper {
        let (sender, jobs) = channel::<Job>();
        // Without a thread nobody takes jobs, and whoever has one does it.
        let _ = std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || jobs.into_iter().for_each(|job| job()));
        Reaper(sender)
    }

    /// Does this after all that was handed over before.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if let Err(SendError(job)) = self.0.send(Box::new(job)) {
            job();
        }
    }

    /// A client that ends on the thread, wherever it is let go of.
    pub fn keep<T: Send + 'static>(&self, client: T) -> Reaped<T> {
        Reaped { client: Some(client), reaper: self.clone() }
    }

    /// Waits until all is done that was handed over, and what that has handed
    /// over. Answers whether it was in time.
    pub fn wait(&self, limit: Duration) -> bool {
        let (done, finished) = channel::<()>();
        let again = self.clone();
        self.run(move || again.run(move || drop(done)));
        finished.recv_timeout(limit) != Err(RecvTimeoutError::Timeout)
    }
}

/// A client that ends on the thread of a [`Reaper`].
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

    /// A client that ends when the test lets it, and says so.
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
    fn a_client_that_does_not_end_holds_up_nobody_and_is_waited_for_to_a_deadline() {
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
    fn the_last_of_those_who_share_a_client_does_not_end_it_either() {
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
    fn what_is_let_go_of_by_what_was_handed_over_is_waited_for_too() {
        let reaper = Reaper::start();
        let (ended, endings) = channel();
        let (let_end, client) = slow("inner", &ended);
        let (begin, may_begin) = channel::<()>();
        let client = reaper.keep(client);
        reaper.run(move || {
            let _ = may_begin.recv_timeout(SHORT);
            drop(client);
        });
        // Asked for before the client is let go of.
        assert!(!reaper.wait(4 * SHORT));
        drop(begin);
        let_end.send(()).unwrap();
        assert!(reaper.wait(LONG));
        assert_eq!(endings.try_recv(), Ok("inner"));
    }
}
