import com.google.protobuf.Duration;
import com.google.protobuf.MessageLite;
import com.google.protobuf.Timestamp;
import devicestatus.v1.FleetSettingsChanged;
import devicestatus.v1.Heartbeat;
import devicestatus.v1.InstanceAlive;
import devicestatus.v1.LifecycleEvent;
import devicestatus.v1.Registered;
import devicestatus.v1.VpnEvent;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Tells device-status of a device: it is registered, and it polls.
 *
 * <pre>
 *   protoc --proto_path=proto --java_out=DIR proto/device_status/v1/device_status.proto
 *   java ProduceEvents DEVICE FLEET
 * </pre>
 *
 * KAFKA_BROKERS says where Kafka is; HEARTBEATS_TOPIC, VPN_TOPIC and LIFECYCLE_TOPIC name the
 * topics if they have other names than the default ones. docs/security.md has the variables for
 * TLS and SASL.
 */
public final class ProduceEvents implements AutoCloseable {
    private static final String HEARTBEATS = env("HEARTBEATS_TOPIC", "device-heartbeats");
    private static final String VPN_SESSIONS = env("VPN_TOPIC", "device-vpn-sessions");
    private static final String LIFECYCLE = env("LIFECYCLE_TOPIC", "device-lifecycle");

    // With the default partitioner: it is murmur2 for records with a key.
    private final KafkaProducer<String, byte[]> producer;
    private final List<Future<?>> sent = new ArrayList<>();

    private ProduceEvents() throws Exception {
        Properties settings = security();
        settings.put("bootstrap.servers", env("KAFKA_BROKERS", "localhost:9092"));
        producer = new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer());
    }

    private static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    /** TLS and SASL. */
    private static Properties security() throws Exception {
        Properties settings = new Properties();
        String protocol = env("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT").toUpperCase();
        settings.put("security.protocol", protocol);
        String authorities = env("KAFKA_CA_FILE", "");
        if (protocol.endsWith("SSL") && !authorities.isEmpty()) {
            settings.put("ssl.truststore.type", "PEM");
            settings.put("ssl.truststore.location", authorities);
        }
        String certificate = env("KAFKA_CERTIFICATE_FILE", "");
        if (protocol.endsWith("SSL") && !certificate.isEmpty()) {
            settings.put("ssl.keystore.type", "PEM");
            settings.put("ssl.keystore.certificate.chain", Files.readString(Path.of(certificate)));
            String key = Files.readString(Path.of(env("KAFKA_KEY_FILE", "")));
            settings.put("ssl.keystore.key", key);
        }
        if (protocol.startsWith("SASL_")) {
            String mechanism = env("KAFKA_SASL_MECHANISM", "PLAIN");
            String module = mechanism.equals("PLAIN")
                ? "org.apache.kafka.common.security.plain.PlainLoginModule"
                : "org.apache.kafka.common.security.scram.ScramLoginModule";
            settings.put("sasl.mechanism", mechanism);
            settings.put("sasl.jaas.config", module + " required username="
                + quoted(env("KAFKA_SASL_USERNAME", "")) + " password="
                + quoted(env("KAFKA_SASL_PASSWORD", "")) + ";");
        }
        return settings;
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    /** An event of one device: its id is the key, and the key chooses the partition. */
    private void send(String topic, String device, MessageLite event) {
        sent.add(producer.send(new ProducerRecord<>(topic, device, event.toByteArray())));
    }

    /** An event of a scope: no key, one copy to every partition. */
    private void broadcast(String topic, MessageLite event) {
        for (PartitionInfo info : producer.partitionsFor(topic)) {
            sent.add(producer.send(
                new ProducerRecord<>(topic, info.partition(), null, event.toByteArray())));
        }
    }

    /** Waits for all; throws if one could not be written: send it again with its occurredAt. */
    private void awaitAll() throws Exception {
        producer.flush();
        for (Future<?> future : sent) {
            future.get();
        }
    }

    @Override
    public void close() {
        producer.close();
    }

    private static Timestamp now() {
        Instant now = Instant.now();
        return Timestamp.newBuilder().setSeconds(now.getEpochSecond()).setNanos(now.getNano()).build();
    }

    private static Duration seconds(long seconds) {
        return Duration.newBuilder().setSeconds(seconds).build();
    }

    public static void main(String[] arguments) throws Exception {
        String device = arguments[0];
        String fleet = arguments[1];
        try (ProduceEvents events = new ProduceEvents()) {
            events.send(LIFECYCLE, device, LifecycleEvent.newBuilder().setOccurredAt(now())
                .setRegistered(Registered.newBuilder().setFleet(fleet).setOrganization("acme"))
                .build());

            // All devices of the fleet are told to poll every 15 minutes.
            events.broadcast(LIFECYCLE, LifecycleEvent.newBuilder().setOccurredAt(now())
                .setFleetSettingsChanged(FleetSettingsChanged.newBuilder()
                    .setFleet(fleet).setPollInterval(seconds(15 * 60)))
                .build());

            // A VPN server answers for its sessions for a minute; it says so every 15 s.
            events.broadcast(VPN_SESSIONS, VpnEvent.newBuilder().setOccurredAt(now())
                .setInstanceAlive(InstanceAlive.newBuilder()
                    .setInstance("vpn-1").setLease(seconds(60)))
                .build());

            // The device polled, and was told to do so again in 15 minutes.
            events.send(HEARTBEATS, device, Heartbeat.newBuilder().setOccurredAt(now())
                .setPollInterval(seconds(15 * 60)).build());
            events.awaitAll();
        }
        System.out.println("told of " + device);
    }
}
