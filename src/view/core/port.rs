//! The port to the Redis servers, for code that sends several commands in sequence.

use redis::Cmd;

use super::answer::Answer;

/// The servers that hold the view. The real connection blocks until the answer; the
/// simulation runs other actors meanwhile.
pub trait Server {
    /// Sends commands as one pipeline and collects the answers.
    ///
    /// # Errors
    /// When an answer did not come, so the commands may or may not have run.
    fn round_trip(&mut self, commands: &[Cmd])
    -> impl Future<Output = Result<Vec<Answer>, String>>;

    /// Sends a command to one server, regardless of its key.
    ///
    /// # Errors
    /// As [`Server::round_trip`].
    fn ask_server(
        &mut self,
        server: usize,
        command: &Cmd,
    ) -> impl Future<Output = Result<Answer, String>>;

    /// The number of servers.
    fn servers(&self) -> usize;
}
