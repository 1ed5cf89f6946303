#!/usr/bin/env bash
# A real Apache Kafka broker of one node, for tests and for trying things out.
set -euo pipefail

usage() {
    cat <<'USAGE'
kafka.sh fetch                      get the broker (once; into target/kafka/lib)
kafka.sh start [option ...]         run it in the foreground, until Ctrl-C
kafka.sh stop [--data DIR]          stop the one that runs on DIR

KAFKA_VERSION=3.9.1 in the environment gets and runs that version instead of the one in
scripts/kafka/pom.xml; it is kept beside it, in target/kafka/lib-3.9.1. Its data need a DIR of
their own.

Options of start:
  --port PORT            where clients connect (default 9092)
  --data DIR             where it keeps its logs (default target/kafka/data)
  --controller-port PORT (default: a free one)
  --cluster-id ID        when DIR is new (default: one by which `device-status simulate` knows that
                         it may write here without asking)
  --heap SIZE            (default 512m)
  --property KEY=VALUE   any setting of the broker; the last one wins
  --sasl-ssl PORT        also listen there with TLS, and ask for SASL (SCRAM-SHA-512, PLAIN,
                         OAUTHBEARER with unsigned tokens) and for ACLs; who comes by the plain
                         port may do everything
  --ssl PORT             also listen there with TLS, and ask for a certificate and for ACLs; the
                         client's name is the CN of its certificate
  --pem FILE             with --sasl-ssl or --ssl: the broker's key and certificate chain
  --client-ca FILE       with --ssl: the authority of the clients' certificates
  --user NAME=PASSWORD   with --sasl-ssl: who may come by SCRAM or PLAIN; more than one may be
                         given, when DIR is new
  --background           return as soon as it listens; `kafka.sh stop` ends it
  --then COMMAND         run COMMAND by the shell as soon as it listens
  --bound                end, at once, when standard input ends
  --ephemeral            with --bound: delete DIR then
USAGE
}

root=$(cd "$(dirname "$0")/.." && pwd)
home="$root/target/kafka"
version=${KAFKA_VERSION:-}
lib="$home/lib${version:+-$version}"

say() { echo "kafka.sh: $*" >&2; }
die() { say "$@"; exit 1; }

fetch() {
    local pom="$root/scripts/kafka/pom.xml"
    cmp -s "$pom" "$lib/pom.xml" && return
    "$root/scripts/need.sh" flock java maven
    mkdir -p "$home"
    (
        # Whoever comes second waits, and then finds it done.
        flock 9
        cmp -s "$pom" "$lib/pom.xml" && exit
        say "fetching Apache Kafka ${version:-$(sed -n 's:.*<kafka.version>\(.*\)</.*:\1:p' "$pom")} ..."
        rm -rf "$lib.partial" "$lib"
        mvn --batch-mode --quiet -Dstyle.color=never ${version:+"-Dkafka.version=$version"} -f "$pom" \
            dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$lib.partial" >&2 </dev/null || exit 1
        # The copy marks the directory as complete, and of which version.
        cp "$pom" "$lib.partial/pom.xml"
        mv "$lib.partial" "$lib"
    ) 9>"$home/fetch.lock" || die "could not fetch Apache Kafka with Maven; see its message above"
}

listening() { (exec 8<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port that nobody listens on, below those that the system hands out by itself.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        listening "$port" || { echo "$port"; return; }
    done
    die "found no free port"
}

running() { [ -s "$1/kafka.pid" ] && kill -0 "$(<"$1/kafka.pid")" 2>/dev/null; }

start() {
    local port=9092 data="$home/data" controller_port='' heap=512m background='' then='' bound='' ephemeral=''
    local sasl_ssl='' ssl='' pem='' client_ca='' users=() cluster_id=''
    local properties=()
    while [ $# -gt 0 ]; do
        case $1 in
            --port) port=$2; shift 2 ;;
            --data) data=$2; shift 2 ;;
            --controller-port) controller_port=$2; shift 2 ;;
            --heap) heap=$2; shift 2 ;;
            --cluster-id) cluster_id=$2; shift 2 ;;
            --sasl-ssl) sasl_ssl=$2; shift 2 ;;
            --ssl) ssl=$2; shift 2 ;;
            --pem) pem=$2; shift 2 ;;
            --client-ca) client_ca=$2; shift 2 ;;
            --user) users+=("$2"); shift 2 ;;
            --property) properties+=("$2"); shift 2 ;;
            --then) then=$2; shift 2 ;;
            --background) background=1; shift ;;
            --bound) bound=1; shift ;;
            --ephemeral) ephemeral=1; shift ;;
            *) usage >&2; exit 2 ;;
        esac
    done
    fetch
    "$root/scripts/need.sh" java
    mkdir -p "$data"
    data=$(cd "$data" && pwd)
    running "$data" && die "a broker runs on $data already (process $(<"$data/kafka.pid")); stop it with: $0 stop --data $data"
    listening "$port" && die "port $port is taken; choose another with --port"
    [ -n "$controller_port" ] || controller_port=$(free_port)

    {
        cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$data/logs
auto.create.topics.enable=false
# One node holds everything once.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# Groups form at once, and learn of changes within a second instead of five.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=1000
group.consumer.min.session.timeout.ms=1000
# A broker that was killed may come back at once.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=200
controller.quorum.election.timeout.ms=100
controller.quorum.fetch.timeout.ms=200
controller.quorum.election.backoff.max.ms=50
# Records may be as old as they like, and stay.
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
PROPERTIES
        [ -z "$sasl_ssl$ssl" ] || secure
        printf '%s\n' ${properties[@]+"${properties[@]}"}
    } >"$data/server.properties"

    local java=(java "-Xmx$heap" -XX:+UseSerialGC
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
        '-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS' -cp "$lib/*")
    if [ ! -f "$data/logs/meta.properties" ]; then
        local scram=() user
        for user in ${users[@]+"${users[@]}"}; do
            scram+=(--add-scram "SCRAM-SHA-512=[name=${user%%=*},password=${user#*=}]")
        done
        # 16 bytes in base64. By their beginning `device-status simulate` knows a broker of ours.
        [ -n "$cluster_id" ] || cluster_id=DeviceStatus$(head -c 6 /dev/urandom | base64 | tr '+/' '-_')0A
        "${java[@]}" kafka.tools.StorageTool format --cluster-id "$cluster_id" \
            -c "$data/server.properties" ${scram[@]+"${scram[@]}"} >>"$data/kafka.log" 2>&1 </dev/null ||
            { tail -n 5 "$data/kafka.log" >&2; die "could not format $data/logs; see $data/kafka.log"; }
    fi
    "${java[@]}" kafka.Kafka "$data/server.properties" >>"$data/kafka.log" 2>&1 </dev/null &
    local broker=$!
    echo "$broker" >"$data/kafka.pid"

    if [ -z "$background" ]; then
        trap 'kill -TERM $broker 2>/dev/null || true' INT TERM HUP
    fi
    local watch=''
    if [ -n "$bound" ]; then
        {
            while read -r _; do :; done
            : >"$data/unbound"
            kill -KILL "$broker" 2>/dev/null || true
        } <&0 &
        watch=$!
    fi

    for _ in {1..600}; do
        listening "$port" && break
        kill -0 "$broker" 2>/dev/null || break
        sleep 0.1
    done
    if ! listening "$port"; then
        kill -KILL "$broker" 2>/dev/null || true
        rm -f "$data/kafka.pid"
        tail -n 5 "$data/kafka.log" >&2 || true
        die "the broker did not start; see $data/kafka.log"
    fi
    # The harness waits for this line.
    echo "listening 127.0.0.1:$port process $broker"

    if [ -n "$then" ]; then
        sh -c "$then" </dev/null || say "the broker runs, but this failed: $then"
    fi
    if [ -n "$background" ]; then
        disown "$broker"
        return
    fi
    # `wait` also returns when a signal was caught: the broker then takes its time to stop.
    while kill -0 "$broker" 2>/dev/null; do { wait "$broker" || true; } 2>/dev/null; done
    rm -f "$data/kafka.pid"
    if [ -n "$ephemeral" ] && [ -e "$data/unbound" ]; then rm -rf "$data"; fi
    [ -z "$watch" ] || kill "$watch" 2>/dev/null || true
}

# The settings of --sasl-ssl and --ssl, in the scope of `start`.
secure() {
    local listeners="PLAINTEXT://127.0.0.1:$port" advertised="PLAINTEXT://127.0.0.1:$port"
    local plain='' user
    if [ -n "$sasl_ssl" ]; then
        listeners+=",SASL_SSL://127.0.0.1:$sasl_ssl" advertised+=",SASL_SSL://localhost:$sasl_ssl"
        for user in ${users[@]+"${users[@]}"}; do plain+=" user_${user%%=*}=\"${user#*=}\""; done
        cat <<PROPERTIES
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required$plain;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="kafka";
PROPERTIES
    fi
    if [ -n "$ssl" ]; then
        listeners+=",SSL://127.0.0.1:$ssl" advertised+=",SSL://localhost:$ssl"
        cat <<PROPERTIES
listener.name.ssl.ssl.client.auth=required
listener.name.ssl.ssl.truststore.type=PEM
listener.name.ssl.ssl.truststore.location=$client_ca
ssl.principal.mapping.rules=RULE:^.*?CN=([^,]*).*$/\$1/,DEFAULT
PROPERTIES
    fi
    cat <<PROPERTIES
listeners=$listeners,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=$advertised
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location=$pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
PROPERTIES
}

stop() {
    local data="$home/data"
    while [ $# -gt 0 ]; do
        case $1 in
            --data) data=$2; shift 2 ;;
            *) usage >&2; exit 2 ;;
        esac
    done
    running "$data" || { say "no broker runs on $data"; return; }
    local broker
    broker=$(<"$data/kafka.pid")
    kill -TERM "$broker"
    for _ in {1..300}; do
        kill -0 "$broker" 2>/dev/null || { rm -f "$data/kafka.pid"; return; }
        sleep 0.1
    done
    die "process $broker does not stop"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    fetch) fetch ;;
    start) start "$@" ;;
    stop) stop "$@" ;;
    -h | --help | help) usage ;;
    *) usage >&2; exit 2 ;;
esac
