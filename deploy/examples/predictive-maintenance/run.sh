#!/bin/sh
# Predictive maintenance with real servers on this machine: Apache Kafka, Mosquitto and Redis on loopback, simulated pumps,
# the job, and what it has found. Everything is started here on free ports, lives in one temporary directory, and ends
# with the script (Ctrl-C, too).
#
#   sh deploy/examples/predictive-maintenance/run.sh [READINGS]      180000 unless given: a minute and a half
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
rows=${1:-180000}
efctl="${EFCTL:-${CARGO_TARGET_DIR:-$root/target}/release/efctl}"

for program in java mvn mosquitto redis-server redis-cli; do
	PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null 2>&1 || {
		echo "$program is missing; sh deploy/setup.sh installs it" >&2
		exit 1
	}
done
[ -x "$efctl" ] || {
	echo "$efctl is missing; make build makes it" >&2
	exit 1
}
PATH="$PATH:/usr/sbin"

work=$(mktemp -d)
pids=""
stop_all() {
	trap - EXIT INT TERM
	for pid in $pids; do kill "$pid" 2>/dev/null || true; done
	for pid in $pids; do wait "$pid" 2>/dev/null || true; done
}
finish() {
	stop_all
	rm -rf "$work"
}
trap finish EXIT
trap 'finish; exit 130' INT TERM

# wait_for WHAT SECONDS COMMAND…
wait_for() {
	what=$1 left=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || {
			echo "$what does not come up; see $work" >&2
			stop_all
			exit 1
		}
		sleep 1
	done
}

free=$(python3 - 2>/dev/null <<'P' || true
import random, socket
# Below those that the kernel gives to outgoing connections.
sockets = []
for port in random.sample(range(10000, 32000), 1000):
    s = socket.socket()
    try: s.bind(("127.0.0.1", port))
    except OSError: continue
    sockets.append(s)
    if len(sockets) == 4: break
print(*(s.getsockname()[1] for s in sockets))
P
)
# shellcheck disable=SC2086 # four words
set -- ${free:-19092 19093 11883 16379}
kafka_port=$1 controller_port=$2 mqtt_port=$3 redis_port=$4
kafka=127.0.0.1:$kafka_port mqtt=127.0.0.1:$mqtt_port redis=127.0.0.1:$redis_port

jars="${KAFKA_HOME:+$KAFKA_HOME/libs}"
if [ -z "$jars" ]; then
	jars="${CARGO_TARGET_DIR:-$root/target}/example-kafka"
	if [ ! -e "$jars/complete" ]; then
		echo "fetching Apache Kafka"
		mvn -q -B -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" -DincludeScope=runtime
		touch "$jars/complete"
	fi
fi

echo "starting Kafka ($kafka), Mosquitto ($mqtt) and Redis ($redis)"
cat >"$work/kafka.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://$kafka,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://$kafka
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$work/kafka
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
P
kafka() { java -Xmx384m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" "$@"; }
kafka kafka.tools.StorageTool format -t "MkU3OEVBNTcwNTJENDM2Qg" -c "$work/kafka.properties" >"$work/kafka.log" 2>&1
kafka kafka.Kafka "$work/kafka.properties" >>"$work/kafka.log" 2>&1 &
pids="$pids $!"
printf 'listener %s 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n' "$mqtt_port" >"$work/mosquitto.conf"
mosquitto -c "$work/mosquitto.conf" >"$work/mosquitto.log" 2>&1 &
pids="$pids $!"
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --dir "$work" >"$work/redis.log" 2>&1 &
pids="$pids $!"
topic() { kafka org.apache.kafka.tools.TopicCommand --bootstrap-server "$kafka" --create --if-not-exists --partitions 3 --topic "$1"; }
wait_for Kafka 60 topic sensor-readings
for name in alert-signals pump-health-5min; do topic "$name" >/dev/null 2>&1; done
wait_for Redis 10 redis-cli -p "$redis_port" ping

model="$root/client/demo/pumps.onnx"
echo "the job: MQTT and Kafka -> cleaning -> windows -> model -> Kafka and Redis"
"$efctl" run "$here/job.sql" --quiet --state-dir "$work/state" \
	-D kafka="$kafka" -D mqtt="$mqtt" -D redis="$redis" -D model="$model" >"$work/job.log" 2>&1 &
job=$!
pids="$pids $job"
# Before it has subscribed, what the pumps publish is for nobody.
wait_for "the job" 60 grep -q "New client connected" "$work/mosquitto.log"
echo "the pumps: $rows readings"
"$efctl" run "$here/sensors.sql" --quiet -D kafka="$kafka" -D mqtt="$mqtt" -D rows="$rows" >"$work/sensors.log" 2>&1 || {
	cat "$work/sensors.log" >&2
	exit 1
}
# The last windows close when their sources have been idle for ten seconds, and are visible a checkpoint later.
sleep 15
kill -0 "$job" 2>/dev/null || {
	cat "$work/job.log" >&2
	exit 1
}
kill -INT "$job"
wait "$job" || true

# consume TOPIC FILE; the time is for the consumer's own start, too, and more of it where it was not enough for a row.
consume() {
	for patience in 10000 60000; do
		kafka org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$kafka" --topic "$1" \
			--from-beginning --timeout-ms "$patience" --isolation-level read_committed >"$2" 2>/dev/null
		[ ! -s "$2" ] || break
	done
}
consume alert-signals "$work/alerts"
consume pump-health-5min "$work/health"
echo "alert-signals: $(wc -l <"$work/alerts") alerts, the first of them:"
head -n 5 "$work/alerts"
echo "pump-health-5min: $(wc -l <"$work/health") windows, the first of them:"
head -n 3 "$work/health"
echo "the last alert of each pump, in Redis:"
for key in $(redis-cli -p "$redis_port" --scan --pattern 'alert:*' | sort); do
	echo "$key $(redis-cli -p "$redis_port" hmget "$key" window_start p_faulty | tr '\n' ' ')"
done
