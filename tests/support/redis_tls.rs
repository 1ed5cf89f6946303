//! A Redis with TLS: an authority, certificates for server and client, made
//! anew for each test.

use std::fs;
use std::path::{Path, PathBuf};

use device_status::config::Redis;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::process::free_port;
use super::redis::RedisServer;

/// An authority and what it has signed, as PEM files.
pub struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let directory = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Authority { directory, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its own certificate.
    pub fn ca_file(&self) -> String {
        text(&self.path("ca.pem"))
    }

    /// Signs a certificate for these names: its file, and its key's.
    pub fn sign(&self, file: &str, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (certificate_file, key_file) =
            (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
        fs::write(&certificate_file, certificate.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (text(&certificate_file), text(&key_file))
    }
}

impl Authority {
    /// Settings of a server at `127.0.0.1` that speaks TLS on a port of its own,
    /// also to other servers, and wants certificates of all.
    pub fn server_settings(&self) -> Vec<String> {
        let port = free_port().to_string();
        let (certificate, key) = self.sign(&format!("server-{port}"), &["127.0.0.1"]);
        let settings = [
            ("--tls-port", port),
            ("--tls-cert-file", certificate),
            ("--tls-key-file", key),
            ("--tls-ca-cert-file", self.ca_file()),
            ("--tls-auth-clients", "yes".to_owned()),
            ("--tls-replication", "yes".to_owned()),
            ("--tls-cluster", "yes".to_owned()),
        ];
        settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// How to reach such servers by `url`.
    pub fn client(&self, url: String) -> Redis {
        let (certificate_file, key_file) = self.sign("client", &[]);
        Redis { url, ca_file: self.ca_file(), certificate_file, key_file, ..Redis::default() }
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A server that speaks TLS on one port, and on another, for the test, does not.
pub struct TlsServer {
    /// The server.
    pub server: RedisServer,
    /// Who signed for it.
    pub authority: Authority,
    port: u16,
}

impl TlsServer {
    /// A server that wants a certificate of its clients, or does not; its own is
    /// for `name`.
    pub fn start(wants_certificates: bool, name: &str) -> TlsServer {
        let authority = Authority::new();
        let (certificate, key) = authority.sign("server", &[name]);
        let port = free_port();
        let server = RedisServer::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &authority.ca_file(),
            "--tls-auth-clients",
            if wants_certificates { "yes" } else { "no" },
        ]);
        TlsServer { server, authority, port }
    }

    /// How to reach it with TLS, but for certificates.
    pub fn config(&self) -> Redis {
        Redis { url: format!("rediss://127.0.0.1:{}", self.port), ..Redis::default() }
    }
}
