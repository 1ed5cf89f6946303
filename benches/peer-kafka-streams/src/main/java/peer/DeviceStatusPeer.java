package peer;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Heartbeats to statuses with Kafka Streams: one in-memory store with a changelog, exactly once,
 * devices expired when they miss their poll interval, each change emitted. It knows heartbeats
 * only, and so does less than device-status does with them.
 */
public final class DeviceStatusPeer {
  static final String STORE = "devices";

  /** The poll interval of 15 minutes, half of it again, and the grace of 15 seconds. */
  static final long TIMEOUT_MS = 15 * 60_000 * 3 / 2 + 15_000;

  static final AtomicLong seen = new AtomicLong();
  static volatile long firstNs;
  static volatile long lastNs;

  /** A row: status, since, last heartbeat, version, and room for what a VPN would need. */
  static final class Row {
    static final int BYTES = 40;
    static final byte ONLINE = 1;
    static final byte OFFLINE = 2;

    static byte[] of(byte status, long sinceMs, long heartbeatMs, long version) {
      return ByteBuffer.allocate(BYTES)
          .put(0, status)
          .putLong(8, sinceMs)
          .putLong(16, heartbeatMs)
          .putLong(24, version)
          .array();
    }

    static byte status(byte[] row) {
      return row[0];
    }

    static long sinceMs(byte[] row) {
      return ByteBuffer.wrap(row).getLong(8);
    }

    static long heartbeatMs(byte[] row) {
      return ByteBuffer.wrap(row).getLong(16);
    }

    static long version(byte[] row) {
      return ByteBuffer.wrap(row).getLong(24);
    }
  }

  static final class Statuses implements Processor<byte[], byte[], byte[], byte[]> {
    private final long records;
    private final CountDownLatch done;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<Bytes, byte[]> devices;

    /** Devices by the second in which they are looked at again, re-filed only then. */
    private final TreeMap<Long, List<Bytes>> wheel = new TreeMap<>();

    Statuses(long records, CountDownLatch done) {
      this.records = records;
      this.done = done;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      devices = context.getStateStore(STORE);
      try (KeyValueIterator<Bytes, byte[]> all = devices.all()) {
        all.forEachRemaining(row -> file(row.key, Row.heartbeatMs(row.value) + TIMEOUT_MS));
      }
      context.schedule(Duration.ofSeconds(1), PunctuationType.STREAM_TIME, this::expire);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      long count = seen.incrementAndGet();
      if (count == records / 10) {
        firstNs = System.nanoTime();
      }
      Bytes device = Bytes.wrap(record.key());
      long atMs = occurredAtMs(record.value(), record.timestamp());
      byte[] row = devices.get(device);
      if (row == null || Row.status(row) == Row.OFFLINE) {
        long version = row == null ? 1 : Row.version(row) + 1;
        byte[] changed = Row.of(Row.ONLINE, atMs, atMs, version);
        devices.put(device, changed);
        file(device, atMs + TIMEOUT_MS);
        context.forward(record.withValue(changed));
      } else if (atMs > Row.heartbeatMs(row)) {
        devices.put(device, Row.of(Row.ONLINE, Row.sinceMs(row), atMs, Row.version(row)));
      }
      if (count == records) {
        lastNs = System.nanoTime();
        done.countDown();
      }
    }

    private void file(Bytes device, long deadlineMs) {
      wheel.computeIfAbsent(deadlineMs / 1000 + 1, second -> new ArrayList<>()).add(device);
    }

    private void expire(long nowMs) {
      while (!wheel.isEmpty() && wheel.firstKey() <= nowMs / 1000) {
        Map.Entry<Long, List<Bytes>> due = wheel.pollFirstEntry();
        for (Bytes device : due.getValue()) {
          byte[] row = devices.get(device);
          if (row == null || Row.status(row) != Row.ONLINE) {
            continue;
          }
          long deadlineMs = Row.heartbeatMs(row) + TIMEOUT_MS;
          if (deadlineMs > nowMs) {
            file(device, deadlineMs);
            continue;
          }
          byte[] changed =
              Row.of(Row.OFFLINE, deadlineMs, Row.heartbeatMs(row), Row.version(row) + 1);
          devices.put(device, changed);
          context.forward(new Record<>(device.get(), changed, nowMs));
        }
      }
    }
  }

  /** Reads Heartbeat.occurred_at, a Timestamp of seconds and nanoseconds in field 1. */
  static long occurredAtMs(byte[] value, long otherwiseMs) {
    ByteBuffer in = ByteBuffer.wrap(value);
    if (!in.hasRemaining() || in.get() != 0x0a) {
      return otherwiseMs;
    }
    int end = (int) varint(in) + in.position();
    long seconds = 0;
    long nanos = 0;
    while (in.position() < end) {
      byte tag = in.get();
      long number = varint(in);
      if (tag == 0x08) {
        seconds = number;
      } else {
        nanos = number;
      }
    }
    return seconds * 1000 + nanos / 1_000_000;
  }

  private static long varint(ByteBuffer in) {
    long number = 0;
    for (int shift = 0; ; shift += 7) {
      byte next = in.get();
      number |= (long) (next & 0x7f) << shift;
      if (next >= 0) {
        return number;
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    String brokers = arguments[0];
    String application = arguments[1];
    String heartbeats = arguments[2];
    String changes = arguments[3];
    long records = Long.parseLong(arguments[4]);
    CountDownLatch done = new CountDownLatch(1);

    Properties properties = new Properties();
    properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
    properties.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
    properties.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
    properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    // The commit of a transaction costs the same however many records it holds.
    properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
    properties.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 20_000);
    properties.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, -1L);
    properties.put(StreamsConfig.METRICS_RECORDING_LEVEL_CONFIG, "INFO");
    properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 20_000);
    properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MIN_BYTES_CONFIG), 1);
    properties.put(
        StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);
    properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.CHECK_CRCS_CONFIG), false);
    properties.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
    properties.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
    properties.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
    properties.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 256L << 20);

    Topology topology = new Topology();
    topology.addSource("heartbeats", new ByteArrayDeserializer(), new ByteArrayDeserializer(), heartbeats);
    topology.addProcessor("statuses", () -> new Statuses(records, done), "heartbeats");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.inMemoryKeyValueStore(STORE), Serdes.Bytes(), Serdes.ByteArray())
            .withCachingDisabled()
            .withLoggingEnabled(Map.of()),
        "statuses");
    topology.addSink("changes", changes, new ByteArraySerializer(), new ByteArraySerializer(), "statuses");

    KafkaStreams streams = new KafkaStreams(topology, properties);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          System.exit(1);
          return null;
        });
    streams.start();
    done.await();
    long counted = records - records / 10;
    System.out.println("done " + counted + " in " + (lastNs - firstNs) / 1_000_000);
    System.gc();
    Runtime runtime = Runtime.getRuntime();
    System.out.println("heap in use: " + (runtime.totalMemory() - runtime.freeMemory()) + " bytes");
    streams.close(Duration.ofSeconds(20));
    System.exit(0);
  }
}
