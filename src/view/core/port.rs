//! The server, as what asks it several things in a row sees it.

use redis::Cmd;

use super::answer::Answer;

/// The servers that hold the view. A connection answers before it returns; the
/// simulator lets others act meanwhile.
pub trait Server {
    /// Sends commands in one go and collects the answers.
    ///
    /// # Errors
    /// When an answer did not come, so that nobody knows what was done.
    fn round_trip(&mut self, commands: &[Cmd])
    -> impl Future<Output = Result<Vec<Answer>, String>>;

    /// Sends a command to one of the servers, whatever key it names.
    ///
    /// # Errors
    /// As [`Server::round_trip`].
    fn ask_server(
        &mut self,
        server: usize,
        command: &Cmd,
    ) -> impl Future<Output = Result<Answer, String>>;

    /// How many servers there are.
    fn servers(&self) -> usize;
}
