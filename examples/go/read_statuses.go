// Reads statuses.
//
//	read_statuses device ID          one device, from Redis
//	read_statuses changes [COUNT]    each change, from Kafka
//
// REDIS_URL says where Redis is, PREFIX what the keys begin with. KAFKA_BROKERS says where
// Kafka is, and CHANGES_TOPIC names the topic if it has another name than the default one.
// docs/security.md has the variables for TLS and SASL.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	ds "devicestatus/v1"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"google.golang.org/protobuf/proto"
)

// A marker moves on at least every 5 s while its partition's view is complete.
const freshMs = 15_000

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// The authorities of a PEM file; the system's if none is named.
func authorities(variable string) (*tls.Config, error) {
	path := os.Getenv(variable)
	if path == "" {
		return &tls.Config{}, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: there is no certificate in %s", variable, path)
	}
	return &tls.Config{RootCAs: pool}, nil
}

// TLS and SASL.
func security() ([]kgo.Opt, error) {
	protocol := strings.ToUpper(env("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT"))
	var options []kgo.Opt
	if protocol == "SSL" || protocol == "SASL_SSL" {
		config, err := authorities("KAFKA_CA_FILE")
		if err != nil {
			return nil, err
		}
		if file := os.Getenv("KAFKA_CERTIFICATE_FILE"); file != "" {
			own, err := tls.LoadX509KeyPair(file, os.Getenv("KAFKA_KEY_FILE"))
			if err != nil {
				return nil, err
			}
			config.Certificates = []tls.Certificate{own}
		}
		options = append(options, kgo.DialTLSConfig(config))
	}
	if strings.HasPrefix(protocol, "SASL_") {
		user, password := os.Getenv("KAFKA_SASL_USERNAME"), os.Getenv("KAFKA_SASL_PASSWORD")
		var mechanism sasl.Mechanism
		switch name := env("KAFKA_SASL_MECHANISM", "PLAIN"); name {
		case "PLAIN":
			mechanism = plain.Auth{User: user, Pass: password}.AsMechanism()
		case "SCRAM-SHA-256":
			mechanism = scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
		case "SCRAM-SHA-512":
			mechanism = scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
		default:
			return nil, fmt.Errorf("KAFKA_SASL_MECHANISM: %s is not known here", name)
		}
		options = append(options, kgo.SASL(mechanism))
	}
	return options, nil
}

// A device's fields and the freshness of its partition; no fields if it is not known.
func readDevice(ctx context.Context, server *redis.Client, device string) (map[string]string, string, error) {
	prefix := env("PREFIX", "ds:")
	fields, err := server.HGetAll(ctx, prefix+"device:"+device).Result()
	if err != nil {
		return nil, "", err
	}
	// A deleted device keeps its token for a while.
	if fields["status"] == "" {
		return nil, "", nil
	}
	// The token names the partition: <partition>:<epoch>:<sequence>.
	partition, _, _ := strings.Cut(fields["token"], ":")
	applied, err := server.HGet(ctx, prefix+"partition:"+partition, "time_ms").Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, "", err
	}
	// The server's own time: ages told by it do not depend on our clock.
	now, err := server.Time(ctx).Result()
	if err != nil {
		return nil, "", err
	}
	age := now.UnixMilli() - applied
	switch {
	case applied == 0: // no marker, or nothing is promised: it is being written again
		return fields, "incomplete", nil
	case age < freshMs:
		return fields, "fresh", nil
	default:
		return fields, fmt.Sprintf("%d s old", age/1000), nil
	}
}

func device(ctx context.Context, id string) error {
	options, err := redis.ParseURL(env("REDIS_URL", "redis://localhost:6379"))
	if err != nil {
		return err
	}
	if options.TLSConfig != nil {
		config, err := authorities("REDIS_CA_FILE")
		if err != nil {
			return err
		}
		options.TLSConfig.RootCAs = config.RootCAs
	}
	server := redis.NewClient(options)
	defer server.Close()
	fields, fresh, err := readDevice(ctx, server, id)
	if err != nil {
		return err
	}
	if fields == nil {
		return fmt.Errorf("%s is not known", id)
	}
	fmt.Printf("%s: %s since %s (%s)\n", id, fields["display"], fields["since_ms"], fresh)
	return nil
}

// A status by its name in Redis.
func word(status ds.Status) string {
	name := strings.TrimPrefix(status.String(), "STATUS_")
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

// Prints so many changes, from the first that the topic holds; 0: without end. A consumer
// that must miss none joins a group (kgo.ConsumerGroup), and skips a change whose version is
// not larger than the last one of its device.
func changes(ctx context.Context, count int) error {
	options, err := security()
	if err != nil {
		return err
	}
	options = append(options,
		kgo.SeedBrokers(strings.Split(env("KAFKA_BROKERS", "localhost:9092"), ",")...),
		kgo.ConsumeTopics(env("CHANGES_TOPIC", "device-status-changes")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Otherwise changes of aborted transactions are shown, and then come again.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	// Says at once what is wrong with the way to the brokers; polling would go on trying.
	reached, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := client.Ping(reached); err != nil {
		return err
	}
	for seen := 0; ; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for records := fetches.RecordIter(); !records.Done(); {
			change := &ds.StatusChanged{}
			if err := proto.Unmarshal(records.Next().Value, change); err != nil {
				return err
			}
			now := word(change.Status)
			if change.Deleted {
				now = "deleted"
			}
			fmt.Printf("%s: %d %s\n", change.DeviceId, change.Version, now)
			if seen++; seen == count {
				return nil
			}
		}
	}
}

func main() {
	log.SetFlags(0)
	arguments := append(os.Args[1:], "", "")
	var err error
	switch arguments[0] {
	case "device":
		err = device(context.Background(), arguments[1])
	case "changes":
		count, _ := strconv.Atoi(arguments[1])
		err = changes(context.Background(), count)
	default:
		log.Print("usage: read_statuses device ID | changes [COUNT]")
		os.Exit(2)
	}
	if err != nil {
		log.Fatal(err)
	}
}
