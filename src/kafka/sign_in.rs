//! How the clients of commands sign in.

use rdkafka::client::{Client, ClientContext};

use super::credentials::wait_for_token;
pub use super::native::Tended;
use crate::config::Config;
use crate::error::Fatal;

/// Gives a new client its token, if `kafka.oauth_command` makes tokens.
///
/// # Errors
/// Why there is no token, and what to do.
pub fn sign_in<C: ClientContext>(client: &Client<C>, config: &Config) -> Result<Tended, Fatal> {
    wait_for_token(config)?;
    Ok(Tended::new(client))
}
