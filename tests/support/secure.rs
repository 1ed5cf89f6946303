//! A real broker with TLS, SASL and ACLs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

use super::kafka::{KafkaBroker, ServiceTopics};
use super::process::free_port;
use super::service::ServiceConfig;

/// A broker that takes strangers only by SASL over TLS, or by a certificate, and
/// lets them do only what ACLs say. The harness itself comes by the plain port, and may do all.
pub struct SecureBroker {
    /// By its plain port.
    pub broker: KafkaBroker,
    port: u16,
    certificate_port: u16,
    directory: TempDir,
}

/// A certificate authority of one test.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    /// Key and certificate for a host or a client.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        (key.serialize_pem(), certificate)
    }
}

impl SecureBroker {
    /// Starts one that knows these users, by name and password.
    pub fn start(users: &[(&str, &str)]) -> SecureBroker {
        SecureBroker::launch(users, KafkaBroker::start_with_options)
    }

    /// The same with other settings of the broker.
    pub fn start_with(users: &[(&str, &str)], properties: &[(&str, &str)]) -> SecureBroker {
        SecureBroker::launch(users, |options| {
            let own = properties
                .iter()
                .flat_map(|(key, value)| ["--property".to_owned(), format!("{key}={value}")]);
            let options: Vec<String> = options.iter().cloned().chain(own).collect();
            KafkaBroker::start_with_options(&options)
        })
    }

    /// The same of another version of Apache Kafka.
    pub fn start_version(version: &'static str, users: &[(&str, &str)]) -> SecureBroker {
        SecureBroker::launch(users, |options| KafkaBroker::start_version(version, &[], options))
    }

    fn launch(
        users: &[(&str, &str)],
        start: impl FnOnce(&[String]) -> KafkaBroker,
    ) -> SecureBroker {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("the test's authority");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        write("ca.pem", &authority.certificate).unwrap();
        let other = Authority::new("another authority");
        write("other-ca.pem", &other.certificate).unwrap();
        let (key, certificate) = authority.issue("localhost");
        // As a broker's PEM keystore has them.
        write("broker.pem", &(key + &certificate)).unwrap();
        for (authority, file, name) in
            [(&authority, CLIENT, CLIENT), (&other, "stranger", "a-stranger")]
        {
            let (key, certificate) = authority.issue(name);
            write(&format!("{file}.key"), &key).unwrap();
            write(&format!("{file}.pem"), &certificate).unwrap();
        }
        let (port, certificate_port) = (free_port(), free_port());
        let path = |name: &str| directory.path().join(name).display().to_string();
        let mut options: Vec<String> = vec![
            "--sasl-ssl".into(),
            port.to_string(),
            "--ssl".into(),
            certificate_port.to_string(),
            "--pem".into(),
            path("broker.pem"),
            "--client-ca".into(),
            path("ca.pem"),
        ];
        for (name, password) in users {
            options.extend(["--user".to_owned(), format!("{name}={password}")]);
            write(&format!("{name}.password"), &format!("{password}\n")).unwrap();
        }
        let broker = start(&options);
        SecureBroker { broker, port, certificate_port, directory }
    }

    /// The secured port, by the name that is in its certificate.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// A file of this broker's: `ca.pem`, `other-ca.pem`, `<user>.password`, and
    /// `.key` and `.pem` of [`CLIENT`] and of `stranger`, who has them from
    /// another authority.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration of a service that comes as `user`, with its password
    /// in a file.
    pub fn config(&self, topics: &ServiceTopics, user: &str) -> ServiceConfig {
        let path = |path: &Path| path.display().to_string();
        ServiceConfig::new(&self.broker, topics)
            .set("kafka.brokers", self.address())
            .set("kafka.properties.security.protocol", "sasl_ssl")
            .set("kafka.properties.sasl.mechanism", "SCRAM-SHA-512")
            .set("kafka.properties.sasl.username", user)
            .set(
                "kafka.properties.sasl.password_file",
                path(&self.file(&format!("{user}.password"))),
            )
            .set("kafka.properties.ssl.ca.location", path(&self.file("ca.pem")))
            .set("kafka.properties.broker.address.family", "v4")
    }

    /// The configuration of a service that comes by the port where certificates
    /// are asked for, without one.
    pub fn certificate_config(&self, topics: &ServiceTopics) -> ServiceConfig {
        ServiceConfig::new(&self.broker, topics)
            .set("kafka.brokers", format!("localhost:{}", self.certificate_port))
            .set("kafka.properties.security.protocol", "ssl")
            .set("kafka.properties.ssl.ca.location", self.file("ca.pem").display().to_string())
            .set("kafka.properties.broker.address.family", "v4")
    }

    /// Lets `user` do this.
    pub fn allow(&self, user: &str, acl: &Acl) {
        self.change_acl(CREATE_ACLS, user, acl);
    }

    /// Takes it back.
    pub fn forbid(&self, user: &str, acl: &Acl) {
        self.change_acl(DELETE_ACLS, user, acl);
    }

    /// Kafka's own protocol, since librdkafka's Rust binding has no ACLs: a
    /// creation and a filter are written alike.
    fn change_acl(&self, api_key: i16, user: &str, acl: &Acl) {
        let mut request = Vec::new();
        let text = |request: &mut Vec<u8>, text: &str| {
            request.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
            request.extend(text.as_bytes());
        };
        request.extend(api_key.to_be_bytes());
        request.extend(ACLS_VERSION.to_be_bytes());
        request.extend(7_i32.to_be_bytes());
        text(&mut request, "test-harness");
        request.extend(1_i32.to_be_bytes());
        request.push(acl.resource as u8);
        text(&mut request, &acl.name);
        request.push(if acl.prefixed { PREFIXED } else { LITERAL });
        text(&mut request, &format!("User:{user}"));
        text(&mut request, "*");
        request.push(acl.operation as u8);
        request.push(ALLOW);

        let mut stream = TcpStream::connect(self.broker.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&request).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut response = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut response).unwrap();
        // Correlation, throttle time, number of results; then the first error.
        let error = i16::from_be_bytes([response[12], response[13]]);
        assert_eq!(error, 0, "{acl:?} for {user}: {response:?}");
    }
}

/// Whose certificate the broker believes.
pub const CLIENT: &str = "certified";

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const ACLS_VERSION: i16 = 1;
const LITERAL: u8 = 3;
const PREFIXED: u8 = 4;
const ALLOW: u8 = 3;

/// Something that is allowed.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "Kafka's terms")]
pub struct Acl {
    pub resource: Resource,
    pub name: String,
    pub prefixed: bool,
    pub operation: AclOperation,
}

/// Kafka's numbers of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kafka's terms")]
pub enum Resource {
    Topic = 2,
    Group = 3,
    Cluster = 4,
    TransactionalId = 5,
}

/// Kafka's numbers of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kafka's terms")]
pub enum AclOperation {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
    DescribeConfigs = 10,
}
