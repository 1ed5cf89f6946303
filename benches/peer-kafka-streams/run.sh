#!/usr/bin/env bash
# Builds the peer where that was not done yet, and runs it:
# run.sh BROKERS APPLICATION HEARTBEATS CHANGES RECORDS STATE_DIRECTORY
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
home="$root/target/kafka-streams"

"$root/scripts/need.sh" flock javac maven >&2
mkdir -p "$home"
(
    flock 9
    if ! cmp -s "$here/pom.xml" "$home/lib/pom.xml"; then
        rm -rf "$home/lib" "$home/lib.partial"
        mvn --batch-mode --quiet -f "$here/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$home/lib.partial" >&2 </dev/null
        cp "$here/pom.xml" "$home/lib.partial/pom.xml"
        mv "$home/lib.partial" "$home/lib"
    fi
    javac -nowarn -cp "$home/lib/*" -d "$home/classes" "$here"/src/main/java/peer/*.java >&2
) 9>"$home/build.lock"

exec java -Xms2g -Xmx2g -XX:+UseParallelGC -cp "$home/classes:$home/lib/*" \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn peer.DeviceStatusPeer "$@"
