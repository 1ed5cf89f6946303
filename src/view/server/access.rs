//! The way to the servers: addresses, credentials and certificates, as
//! configured, and what to say when it is barred.

use std::path::Path;
use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    TlsCertificates,
};

use crate::config::redis_url::RedisServers;
use crate::config::{Redis, redact_url, secret_in};
use crate::error::Fatal;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take. The crate's 500 ms is less than a server needs
/// that forks, loads or is failing over.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the servers.
pub struct Access {
    config: Redis,
    /// Which servers.
    pub servers: RedisServers,
}

impl Access {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When the URL is none, or certificates cannot be used, in words for the
    /// person who wrote it.
    pub fn new(config: &Redis) -> Result<Access, Fatal> {
        let servers = RedisServers::parse(&config.url).map_err(|(what, remedy)| {
            let url = redact_url(&config.url);
            Fatal::configuration(format!("redis.url: {url:?} {what}; {remedy}"))
        })?;
        let access = Access { config: config.clone(), servers };
        access.certificates().map_err(Fatal::configuration)?;
        Ok(access)
    }

    /// The servers' address, without its password.
    #[must_use]
    pub fn shown(&self) -> String {
        redact_url(&self.config.url)
    }

    /// The certificates, read anew each time since they are renewed.
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
    /// When there is no server that answers, or it does not let us in.
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

    /// Asks the Sentinels, one after the other, where the master is.
    ///
    /// # Errors
    /// When none knows.
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
                 its `sentinel monitor`",
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

/// The password as it is now: secrets in files are rotated while we run.
fn current(password: &str, file: Option<&Path>) -> Result<String, String> {
    let Some(path) = file else { return Ok(password.to_owned()) };
    secret_in(path).map_err(|what| format!("the password file {} {what}", path.display()))
}

/// The first answer of several; where there is none, why none answers.
pub fn first_of<T, A>(
    several: &[T],
    ask: impl FnMut(&T) -> Result<A, String>,
) -> Result<A, String> {
    let mut reasons = Vec::new();
    let mut answers = several.iter().map(ask);
    let answer = answers.find_map(|answer| answer.map_err(|reason| reasons.push(reason)).ok());
    answer.ok_or_else(|| reasons.join("; "))
}

/// The same with another address.
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

/// An error of a connection, with what to do about it.
fn explained(error: &RedisError, server: &str, tls: bool, credentials: &str) -> String {
    let text = error.to_string();
    let says = |what: &str| text.contains(what);
    let remedy = if error.kind() == ErrorKind::AuthenticationFailed {
        format!("wrong user or password: see {credentials}")
    } else if says("NOAUTH")
        || says("Authentication required")
        || says("without any password configured")
    {
        format!("the password is missing, or none is wanted: see {credentials}")
    } else if says("UnknownIssuer") || says("BadSignature") {
        "the server's certificate is not signed by an authority that is believed: \
         name its authority in redis.ca_file"
            .to_owned()
    } else if says("not valid for name") {
        "the server's certificate is for another name: use that name in redis.url, and with \
         Sentinels or a cluster let the servers announce it"
            .to_owned()
    } else if says("expired") || says("not valid yet") {
        "the server's certificate is not valid now: renew it, and see to both clocks".to_owned()
    } else if says("CertificateRequired") || says("peer sent no certificates") {
        "the server wants a certificate of us: see redis.certificate_file and redis.key_file"
            .to_owned()
    } else if says("UnknownCA") || says("BadCertificate") || says("DecryptError") {
        "the server does not believe our certificate: see redis.certificate_file".to_owned()
    } else if says("InvalidContentType") || says("corrupt message") {
        "the server does not speak TLS on this port: use its TLS port, or redis:// without the \
         second s"
            .to_owned()
    } else if error.is_connection_refusal() {
        "nobody listens there".to_owned()
    } else if error.is_connection_dropped() || error.is_timeout() {
        let what = if error.is_timeout() { "does not answer" } else { "hung up" };
        let scheme = match tls {
            true => "does not speak TLS on this port, let redis.url begin with redis, without TLS",
            false => "speaks TLS on this port, let redis.url begin with rediss",
        };
        format!("the server {what}; if it {scheme}")
    } else {
        return format!("{server}: {text}");
    };
    format!("{server}: {remedy} ({text})")
}

/// The server's complaint about a command, with what to do about it.
pub fn complaint(error: &RedisError) -> String {
    let text = error.to_string();
    if text.contains("NOAUTH") || text.contains("Authentication required") {
        return format!("{text}: the password is missing: see redis.username and redis.password");
    }
    let lacks_rights = ["NOPERM", "NoPerm", "can't run this command", "ACL failure"];
    if lacks_rights.iter().any(|word| text.contains(word)) {
        return format!(
            "{text}: the user of redis.url lacks a right; docs/redis.md names all that are needed, \
             as `ACL SETUSER` takes them"
        );
    }
    text
}

/// What a server says of itself in `INFO`.
pub fn said<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_told_by_key_without_its_password() {
        for url in ["redis//me:secret@host", "http://:secret@host", "redis-sentinel://:secret@h"] {
            let config = Redis { url: url.to_owned(), ..Redis::default() };
            let Err(fatal) = Access::new(&config) else { panic!("{url} was taken") };
            assert!(fatal.message.contains("redis.url"), "{fatal}");
            assert!(!fatal.message.contains("secret"), "{fatal}");
        }
    }
}
