//! How to connect to the servers: addresses, credentials and certificates. Also the
//! error messages when that fails.

use std::path::Path;
use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    TlsCertificates,
};

use crate::config::redis_url::RedisServers;
use crate::config::{Redis, redact_url, secret_in};
use crate::error::Fatal;

/// The timeout for a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The timeout for an answer. The crate's 500 ms is too short for a server that forks,
/// loads its data or fails over.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How to connect to the servers.
pub struct Access {
    config: Redis,
    /// The servers.
    pub servers: RedisServers,
}

impl Access {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When the URL is malformed, or a certificate cannot be read.
    pub fn new(config: &Redis) -> Result<Access, Fatal> {
        let servers = RedisServers::parse(&config.url).map_err(|(what, remedy)| {
            let url = redact_url(&config.url);
            Fatal::configuration(format!("redis.url: {url:?} {what}; {remedy}"))
        })?;
        let access = Access { config: config.clone(), servers };
        access.certificates().map_err(Fatal::configuration)?;
        Ok(access)
    }

    /// The URL of the servers, without its password.
    #[must_use]
    pub fn shown(&self) -> String {
        redact_url(&self.config.url)
    }

    /// The certificates. They are read for each connection, since they get renewed.
    fn certificates(&self) -> Result<Option<TlsCertificates>, String> {
        let read = |key: &str, path: &str| match path {
            "" => Ok(None),
            path => std::fs::read(path)
                .map(Some)
                .map_err(|error| format!("redis.{key}: {path} cannot be read: {error}")),
        };
        let root_cert = read("ca_file", &self.config.ca_file)?;
        let certificate = read("certificate_file", &self.config.certificate_file)?;
        let key = read("key_file", &self.config.key_file)?;
        let client_tls = certificate
            .zip(key)
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let any = root_cert.is_some() || client_tls.is_some();
        Ok(any.then_some(TlsCertificates { client_tls, root_cert }))
    }

    /// Connects to a server of the view.
    ///
    /// # Errors
    /// When the server does not answer, or refuses the login.
    pub fn connect(&self, server: &ConnectionInfo) -> Result<Connection, String> {
        let username = &self.config.username;
        let password = current(&self.config.password, self.config.password_file.as_deref())?;
        self.connect_as(server, username, &password).map_err(|error| {
            let server = server.addr();
            let tls = self.servers.has_tls();
            explained(&error, &server.to_string(), tls, "redis.username and redis.password")
        })
    }

    fn connect_as(
        &self,
        server: &ConnectionInfo,
        username: &str,
        password: &str,
    ) -> Result<Connection, RedisError> {
        let mut redis = server.redis_settings().clone();
        if !username.is_empty() {
            redis = redis.set_username(username);
        }
        if !password.is_empty() {
            redis = redis.set_password(password);
        }
        let server = server.clone().set_redis_settings(redis);
        let certificates = self.certificates().map_err(std::io::Error::other)?;
        let client = match certificates.filter(|_| self.servers.has_tls()) {
            Some(certificates) => Client::build_with_tls(server, certificates)?,
            None => Client::open(server)?,
        };
        let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
        connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        connection.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(connection)
    }

    /// Asks the Sentinels, one after the other, for the address of the master.
    ///
    /// # Errors
    /// When none of them knows it.
    pub fn master_of(
        &self,
        sentinels: &[ConnectionInfo],
        master: &str,
        server: &ConnectionInfo,
    ) -> Result<ConnectionInfo, String> {
        first_of(sentinels, |sentinel| match self.ask_sentinel(sentinel, master)? {
            Some((host, port)) => Ok(moved_to(server, &host, port)),
            None => Err(format!(
                "the Sentinel {} knows no master {master:?}; redis.url must end with the name in \
                 its line `sentinel monitor NAME`",
                sentinel.addr()
            )),
        })
    }

    fn ask_sentinel(
        &self,
        sentinel: &ConnectionInfo,
        master: &str,
    ) -> Result<Option<(String, u16)>, String> {
        let username = &self.config.sentinel_username;
        let file = self.config.sentinel_password_file.as_deref();
        let password = current(&self.config.sentinel_password, file)?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let asked = self
            .connect_as(sentinel, username, &password)
            .and_then(|mut connection| ask.query::<Option<(String, u16)>>(&mut connection));
        asked.map_err(|error| {
            let server = format!("the Sentinel {}", sentinel.addr());
            let tls = self.servers.has_tls();
            explained(&error, &server, tls, "redis.sentinel_username and redis.sentinel_password")
        })
    }
}

/// The current password. It is read from its file again, since it may be rotated.
fn current(password: &str, file: Option<&Path>) -> Result<String, String> {
    let Some(path) = file else { return Ok(password.to_owned()) };
    secret_in(path).map_err(|what| format!("the password file {} {what}", path.display()))
}

/// The first success of several; without one, all errors.
pub fn first_of<T, A>(
    several: &[T],
    ask: impl FnMut(&T) -> Result<A, String>,
) -> Result<A, String> {
    let mut reasons = Vec::new();
    let mut answers = several.iter().map(ask);
    let answer = answers.find_map(|answer| answer.map_err(|reason| reasons.push(reason)).ok());
    answer.ok_or_else(|| reasons.join("; "))
}

/// The same connection settings with another address.
pub fn moved_to(server: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let addr = match server.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    server.clone().set_addr(addr)
}

/// The message for a failed connection, with a remedy.
fn explained(error: &RedisError, server: &str, tls: bool, credentials: &str) -> String {
    let text = error.to_string();
    let says = |what: &str| text.contains(what);
    let remedy = if error.kind() == ErrorKind::AuthenticationFailed {
        format!("authentication failed, wrong user or password: check {credentials}")
    } else if says("NOAUTH")
        || says("Authentication required")
        || says("without any password configured")
    {
        format!(
            "authentication failed, the password is missing or the server has none: check \
             {credentials}"
        )
    } else if says("UnknownIssuer") || says("BadSignature") {
        "the server's certificate is signed by an unknown authority: set redis.ca_file to the \
         certificate of its authority (CA)"
            .to_owned()
    } else if says("not valid for name") {
        "the server's certificate is for another host name: use a name of the certificate in \
         redis.url, and with Sentinels or a cluster let the servers announce that name"
            .to_owned()
    } else if says("expired") || says("not valid yet") {
        "the server's certificate has expired or is not valid yet: renew it, and check the \
         clocks of both hosts"
            .to_owned()
    } else if says("CertificateRequired") || says("peer sent no certificates") {
        "the server requires a client certificate: set redis.certificate_file and redis.key_file"
            .to_owned()
    } else if says("UnknownCA") || says("BadCertificate") || says("DecryptError") {
        "the server rejects our client certificate: check redis.certificate_file".to_owned()
    } else if says("InvalidContentType") || says("corrupt message") {
        "the server does not speak TLS on this port: use its TLS port, or begin redis.url with \
         redis instead of rediss"
            .to_owned()
    } else if error.is_connection_refusal() {
        "connection refused, no server listens on this port: check host and port in redis.url"
            .to_owned()
    } else if error.is_connection_dropped() || error.is_timeout() {
        let what =
            if error.is_timeout() { "does not answer (timeout)" } else { "closed the connection" };
        let scheme = match tls {
            true => "does not speak TLS on this port, begin redis.url with redis, not rediss",
            false => "speaks TLS on this port, begin redis.url with rediss",
        };
        format!("the server {what}; if it {scheme}")
    } else {
        return format!("{server}: {text}");
    };
    format!("{server}: {remedy} ({text})")
}

/// The message for a server's error on a command, with a remedy.
pub fn complaint(error: &RedisError) -> String {
    let text = error.to_string();
    if text.contains("NOAUTH") || text.contains("Authentication required") {
        return format!("{text}: authentication required, check redis.username and redis.password");
    }
    let lacks_rights = ["NOPERM", "NoPerm", "can't run this command", "ACL failure"];
    if lacks_rights.iter().any(|word| text.contains(word)) {
        return format!(
            "{text}: permission denied, the Redis user lacks a right of its ACL; docs/redis.md \
             lists all rights for `ACL SETUSER`"
        );
    }
    text
}

/// A field of the answer to `INFO`.
pub fn said<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_reported_without_its_password() {
        for url in ["redis//me:secret@host", "http://:secret@host", "redis-sentinel://:secret@h"] {
            let config = Redis { url: url.to_owned(), ..Redis::default() };
            let Err(fatal) = Access::new(&config) else { panic!("{url} was taken") };
            assert!(fatal.message.contains("redis.url"), "{fatal}");
            assert!(!fatal.message.contains("secret"), "{fatal}");
        }
    }
}
