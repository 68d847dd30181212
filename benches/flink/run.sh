#!/bin/sh
# Runs job.sql with config.yaml in Apache Flink, from one Kafka topic to another, and prints one line of figures.
# Usage: run.sh BOOTSTRAP IN_TOPIC OUT_TOPIC. Both topics are there and the input is filled: the job ends where the
# input ended when it began. Needs Java 17 and, for the first run, Maven. JAVA_OPTS wins over the options here.
set -eu

if [ $# != 3 ]; then
	echo "usage: $0 BOOTSTRAP IN_TOPIC OUT_TOPIC" >&2
	exit 2
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
built="$here/../../target/flink"
java="${JAVA_HOME:+$JAVA_HOME/bin/}java"

if [ ! -e "$built/bench.jar" ] || [ -n "$(find "$here/pom.xml" "$here/src" -newer "$built/bench.jar")" ]; then
	mvn -q -B -Dstyle.color=never -f "$here/pom.xml" clean package >&2
fi

# Flink's own files and the checkpoints.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck disable=SC2086 # several options
"$java" -Xms2g -Xmx2g -XX:+UseParallelGC -Djava.io.tmpdir="$scratch" -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
	${JAVA_OPTS:-} -cp "$built/bench.jar:$built/lib/*" edgeflow.bench.Main "$here" "$@" &
pid=$!
trap 'kill "$pid"; wait "$pid" || exit 1' INT TERM
wait "$pid"
