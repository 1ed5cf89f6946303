//! A Redis that answers, and takes no writes, or does not let us in any more:
//! readiness and the metrics tell it, with the words of Redis, until it does.

use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::KafkaBroker;
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{now_ms, wait_for};

const SOON: Duration = Duration::from_secs(60);

fn wait_for_readiness(service: &DeviceStatus, status: u16, words: &[&str]) {
    wait_for(SOON, "readiness to tell", || match service.get("/ready") {
        Ok((told, body)) if told == status && words.iter().all(|word| body.contains(word)) => {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
}

fn wait_for_gauges(service: &DeviceStatus, refusing: f64, up: f64) {
    wait_for(SOON, "the gauges to tell", || {
        let told = ["refusing", "up"]
            .map(|name| service.metric(&format!("device_status_redis_{name}"), ""));
        if told == [Some(refusing), Some(up)] { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

#[test]
fn a_redis_that_refuses_writes_makes_unready_until_it_takes_them() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("refused", 1);
    let redis = RedisServer::start();
    let mut admin = redis.connection();
    let mut run = |command: &str| {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.exec(&mut admin).unwrap();
    };
    run("CONFIG SET maxmemory-policy volatile-ttl");
    run("ACL SETUSER writer on >s3cret ~* &* +@all");
    let config = ServiceConfig::new(broker, &topics)
        .redis(&format!("redis://writer:s3cret@127.0.0.1:{}", redis.port()))
        .announce(&[
            "maxmemory-policy is volatile-ttl",
            "OOM",
            "used memory > 'maxmemory'",
            "docs/redis.md lists all",
        ]);
    let mut service = DeviceStatus::start_ready(&config);
    assert_eq!(service.metric("device_status_redis_evicts", ""), Some(1.0));
    assert_eq!(service.metric("device_status_redis_refusing", ""), Some(0.0));
    let devices = [1, 2, 3].map(device_id);
    let producer = broker.producer();
    // Each another device: a script that has deleted something may go on
    // writing although memory is full.
    let register = |device: &String| {
        producer.send(&topics, [events::registered(device, now_ms(), "red", "acme")]);
        producer.flush();
    };
    let arrived = |device: &String| redis.wait_for_fields(device, SOON, &[("fleet", "red")]);
    register(&devices[0]);
    arrived(&devices[0]);

    // Full, and it may throw nothing away.
    run("CONFIG SET maxmemory-policy noeviction");
    run("CONFIG SET maxmemory 1");
    register(&devices[1]);
    wait_for_readiness(&service, 503, &["Redis refuses writes", "maxmemory", "refusing"]);
    wait_for_gauges(&service, 1.0, 1.0);
    run("CONFIG SET maxmemory 0");
    arrived(&devices[1]);
    wait_for_readiness(&service, 200, &[]);
    wait_for_gauges(&service, 0.0, 1.0);

    // Without the right to write.
    run("ACL SETUSER writer -hset");
    register(&devices[2]);
    wait_for_readiness(&service, 503, &["Redis refuses writes", "docs/redis.md"]);
    wait_for_gauges(&service, 1.0, 1.0);
    run("ACL SETUSER writer +hset");
    arrived(&devices[2]);
    wait_for_readiness(&service, 200, &[]);
    wait_for_gauges(&service, 0.0, 1.0);
    service.terminate();
}

#[test]
fn a_password_that_is_rotated_in_its_file_is_read_again() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("rotated", 1);
    let redis = RedisServer::start();
    let mut admin = redis.connection();
    let mut acl = |words: &[&str]| {
        redis::cmd("ACL").arg("SETUSER").arg("writer").arg(words).exec(&mut admin).unwrap();
        redis::cmd("CLIENT").arg(&["KILL", "USER", "writer"]).exec(&mut admin).unwrap();
    };
    acl(&["on", ">first", "~*", "&*", "+@all"]);
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("redis-password");
    std::fs::write(&secret, "first\n").unwrap();
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .set("redis.username", "writer")
        .set("redis.password_file", secret.to_str().unwrap())
        .announce(&["lost the connection to Redis", "cannot connect to Redis", "while it runs"]);
    let mut service = DeviceStatus::start_ready(&config);

    acl(&["resetpass", ">second"]);
    let told = ["Redis is unavailable", "wrong user or password"];
    wait_for_readiness(&service, 503, &told);
    // A file that is gone for a moment is told by its path, and stops nobody.
    std::fs::remove_file(&secret).unwrap();
    wait_for_readiness(&service, 503, &["redis-password", "cannot be read"]);
    std::fs::write(&secret, "second\n").unwrap();
    wait_for_readiness(&service, 200, &[]);
    let device = device_id(1);
    let producer = broker.producer();
    producer.send(&topics, [events::registered(&device, now_ms(), "red", "acme")]);
    producer.flush();
    redis.wait_for_fields(&device, SOON, &[("fleet", "red")]);
    service.terminate();
}
