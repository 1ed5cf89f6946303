//! Changes what a running client signs in with: its token, or its user and password.

use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;
use tracing::warn;

use crate::kafka::credentials::{self, Credential};
use crate::kafka::oauth::Token;

/// The credentials that a client has.
#[derive(Debug, Default)]
pub struct Tended(AtomicU64);

impl Tended {
    /// The state of a new client. It gets the current credentials.
    pub fn new<C: ClientContext>(client: &Client<C>) -> Tended {
        let tended = Tended::default();
        tended.tend(client);
        tended
    }

    /// Gives the client what is new. Call it wherever the client is served: without
    /// something new it costs two loads.
    pub fn tend<C: ClientContext>(&self, client: &Client<C>) {
        let generation = credentials::generation();
        if self.0.load(Ordering::Relaxed) == generation {
            return;
        }
        self.0.store(generation, Ordering::Relaxed);
        let set = match credentials::current() {
            Some(Credential::Token(token)) => set_token(client, &token),
            Some(Credential::Login { username, password }) => {
                set_login(client, &username, &password)
            }
            None => Ok(()),
        };
        if let Err(error) = set {
            warn!(error, "a Kafka client does not take its new credentials");
        }
    }
}

/// Gives a client a token for OAUTHBEARER. Connections that wait for one go on.
fn set_token<C: ClientContext>(client: &Client<C>, token: &Token) -> Result<(), String> {
    let value = c_string(&token.value, "the token")?;
    let principal = c_string(&token.principal, "the principal")?;
    let mut pairs = Vec::new();
    for (name, value) in &token.extensions {
        pairs.extend([c_string(name, "an extension")?, c_string(value, "an extension")?]);
    }
    let mut extensions: Vec<*const c_char> = pairs.iter().map(|pair| pair.as_ptr()).collect();
    let mut why: [c_char; 512] = [0; 512];
    // SAFETY: the client is borrowed. librdkafka copies all texts, which outlive the
    // call, and writes a terminated text of at most the length of `why`.
    let code = unsafe {
        sys::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.expires_ms,
            principal.as_ptr(),
            extensions.as_mut_ptr(),
            extensions.len(),
            why.as_mut_ptr(),
            why.len(),
        )
    };
    if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: as above, and at first it is all zeros.
    Err(unsafe { CStr::from_ptr(why.as_ptr()) }.to_string_lossy().into_owned())
}

/// Gives a client a user and a password for PLAIN or SCRAM, for its next connections.
fn set_login<C: ClientContext>(
    client: &Client<C>,
    username: &str,
    password: &str,
) -> Result<(), String> {
    let username = c_string(username, "sasl.username")?;
    let password = c_string(password, "sasl.password")?;
    // SAFETY: the client is borrowed; both texts are copied. The error, if any, is ours
    // to destroy, after its text is copied.
    unsafe {
        let rk = client.native_ptr();
        let error = sys::rd_kafka_sasl_set_credentials(rk, username.as_ptr(), password.as_ptr());
        if error.is_null() {
            return Ok(());
        }
        let why = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
        sys::rd_kafka_error_destroy(error);
        Err(why)
    }
}

fn c_string(text: &str, what: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{what} contains a zero byte"))
}
