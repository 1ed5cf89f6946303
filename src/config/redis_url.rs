//! Parses `redis.url`: the servers and their kind.

use redis::{ConnectionInfo, IntoConnectionInfo as _};

/// The port of a Sentinel, where none is given.
const SENTINEL_PORT: &str = "26379";

/// The servers of a URL, with its user, password and database.
#[derive(Clone, Debug)]
pub enum RedisServers {
    /// One server.
    One(ConnectionInfo),
    /// A master that Sentinels monitor.
    Sentinel {
        /// The Sentinels. One that answers is enough.
        sentinels: Vec<ConnectionInfo>,
        /// The name of the master.
        master: String,
        /// The connection settings of the master, without its address.
        server: Box<ConnectionInfo>,
    },
    /// Some nodes of a cluster.
    Cluster(Vec<ConnectionInfo>),
}

impl RedisServers {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, and the right form. Without any of its text, since it may
    /// contain a password.
    pub fn parse(url: &str) -> Result<RedisServers, (String, String)> {
        let wrong = |what: &str| {
            (
                what.to_owned(),
                "write one such as redis://localhost:6379, unix:///run/redis.sock, \
                 redis-sentinel://host1,host2/NAME or redis-cluster://host1,host2; with TLS \
                 rediss://, rediss-sentinel://, rediss-cluster://"
                    .to_owned(),
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("is not a Redis URL"))?;
        let scheme = scheme.to_ascii_lowercase().replace('+', "-");
        let (base, kind) = scheme.split_once('-').unwrap_or((&scheme, ""));
        if !["redis", "rediss", "valkey", "valkeys", "unix"].contains(&base)
            || !["", "unix", "sentinel", "cluster"].contains(&kind)
        {
            return Err(wrong("is not a Redis URL"));
        }
        // These characters must be percent-encoded before the last `@`.
        let (credentials, _) = rest.rsplit_once('@').unwrap_or_default();
        if base != "unix" && kind != "unix" && credentials.contains(['/', '?', '#']) {
            let what =
                "has a user or a password with / ? or #, a character that ends them in a URL";
            let remedy = "percent-encode it (%2F for /, %3F for ?, %23 for #), or set the password \
                          with redis.password or redis.password_file";
            return Err((what.to_owned(), remedy.to_owned()));
        }
        let one = |base: &str, rest: &str| {
            let info = format!("{base}://{rest}").into_connection_info();
            info.map_err(|error| wrong(&format!("is not a Redis URL ({error})")))
        };
        if ["", "unix"].contains(&kind) {
            let base = if kind == "unix" { "unix" } else { base };
            return if rest.is_empty() {
                Err(wrong("names no server"))
            } else {
                Ok(RedisServers::One(one(base, rest)?))
            };
        }
        // Split at the last `@`: the password may contain an unescaped one.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (format!("{credentials}@"), rest),
            None => (String::new(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(wrong("has an empty host name"));
        }
        if kind == "cluster" {
            if !["", "0"].contains(&path.trim_matches('/')) {
                return Err(wrong("names a database, but a cluster has only database 0"));
            }
            let nodes = hosts.iter().map(|host| one(base, &format!("{credentials}{host}")));
            return Ok(RedisServers::Cluster(nodes.collect::<Result<_, _>>()?));
        }
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err(wrong("lacks the name of the master that the Sentinels monitor"));
        }
        let sentinels = hosts.iter().map(|host| match has_port(host) {
            true => one(base, host),
            false => one(base, &format!("{host}:{SENTINEL_PORT}")),
        });
        Ok(RedisServers::Sentinel {
            sentinels: sentinels.collect::<Result<_, _>>()?,
            master: master.to_owned(),
            server: Box::new(one(base, &format!("{credentials}localhost/{database}"))?),
        })
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        let info = match self {
            RedisServers::One(info) => Some(info),
            RedisServers::Sentinel { server, .. } => Some(&**server),
            RedisServers::Cluster(nodes) => nodes.first(),
        };
        info.is_some_and(|info| matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }))
    }
}

/// Whether a host has a port. IPv6 addresses are in brackets.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// Whether `prefix` contains a hash tag, which puts all its keys on one node of a cluster.
#[must_use]
pub fn has_hash_tag(prefix: &str) -> bool {
    let tag = prefix.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::ConnectionAddr;

    fn address(info: &ConnectionInfo) -> (String, u16) {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.clone(), *port)
            }
            other => (other.to_string(), 0),
        }
    }

    #[test]
    fn every_form_of_url_is_parsed() {
        let Ok(RedisServers::One(info)) = RedisServers::parse("redis://u:p%40@h/3") else {
            panic!("one server")
        };
        assert_eq!(address(&info), ("h".to_owned(), 6379));
        let redis = info.redis_settings();
        assert_eq!((redis.username(), redis.password(), redis.db()), (Some("u"), Some("p@"), 3));
        let Ok(RedisServers::One(info)) = RedisServers::parse("unix:///run/r.sock?db=2") else {
            panic!("a socket")
        };
        assert_eq!((address(&info).0.as_str(), info.redis_settings().db()), ("/run/r.sock", 2));

        let url = "rediss-sentinel://u:p@a:1,[::1],c/main/4";
        let servers = RedisServers::parse(url).unwrap();
        assert!(servers.has_tls());
        let RedisServers::Sentinel { sentinels, master, server } = servers else {
            panic!("Sentinels")
        };
        let places: Vec<_> = sentinels.iter().map(address).collect();
        let places: Vec<_> = places.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(places, [("a", 1), ("::1", 26379), ("c", 26379)]);
        assert_eq!(sentinels[0].redis_settings().password(), None);
        assert_eq!((master.as_str(), server.redis_settings().db()), ("main", 4));
        assert_eq!(server.redis_settings().password(), Some("p"));

        for url in ["redis+cluster://:p@a,b:7/", "valkey-cluster://:p@a,b:7"] {
            let Ok(RedisServers::Cluster(nodes)) = RedisServers::parse(url) else {
                panic!("a cluster")
            };
            assert_eq!(address(&nodes[1]), ("b".to_owned(), 7));
            assert_eq!(nodes[1].redis_settings().password(), Some("p"));
        }
    }

    #[test]
    fn errors_do_not_show_the_password() {
        for (url, told) in [
            ("http://:secret@h", "not a Redis URL"),
            ("redis//u:secret@h", "not a Redis URL"),
            ("redis://:secret@h/x", "database"),
            ("redis-cluster://:secret@h/1", "only database 0"),
            ("redis-cluster://:secret@h,,i", "empty host name"),
            ("redis-sentinel://:secret@h:26379", "lacks the name"),
        ] {
            let (what, remedy) = RedisServers::parse(url).unwrap_err();
            assert!(what.contains(told), "{url}: {what}");
            assert!(!what.contains("secret") && remedy.contains("redis-sentinel://"), "{what}");
        }
    }

    #[test]
    fn an_unencoded_password_is_refused_with_a_remedy() {
        for url in [
            "redis://:secret#s@h",
            "redis://u:secret/s@h:1/3",
            "rediss-sentinel://:secret?@h/main",
            "redis-cluster://:#secret@h",
        ] {
            let (what, remedy) = RedisServers::parse(url).unwrap_err();
            assert!(what.contains("ends them in a URL") && !what.contains("secret"), "{what}");
            assert!(remedy.contains("%23 for #") && remedy.contains("redis.password"), "{remedy}");
        }
        for url in ["redis://u:a%23b@h", "unix:///run/a@b.sock", "redis://:a@b[100%]@h"] {
            assert!(RedisServers::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn hash_tags_are_recognized_as_redis_does() {
        assert!(has_hash_tag("{ds}:") && has_hash_tag("a{b}c") && has_hash_tag("{{}:"));
        assert!(!has_hash_tag("ds:") && !has_hash_tag("{}ds:") && !has_hash_tag("a{b"));
    }
}
