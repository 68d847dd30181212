#!/bin/sh
# Installs what a fresh Debian 12 with rustup lacks to build and test EdgeFlow: a C++ compiler, make, libclang (RocksDB's
# bindings), protoc (the raft crate's messages), OpenSSL (the Kafka client); for tests ip and nft (broken networks), Java
# and Maven (a Kafka broker), Mosquitto, Redis. Does nothing where all of it is there. Elsewhere it says what is missing.
set -eu

missing=""
command -v cc >/dev/null 2>&1 || missing="$missing gcc"
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
command -v make >/dev/null 2>&1 || missing="$missing make"
command -v protoc >/dev/null 2>&1 || missing="$missing protobuf-compiler"
command -v pkg-config >/dev/null 2>&1 || missing="$missing pkg-config"
if [ -z "${OPENSSL_DIR:-}" ] && ! pkg-config --exists libssl 2>/dev/null; then missing="$missing libssl-dev"; fi
found=""
# Not libclang-cpp.so, which is another library.
for lib in /usr/lib/llvm-*/lib/libclang.so* /usr/lib/llvm-*/lib/libclang-[0-9]*.so* /usr/lib/*/libclang.so* /usr/lib/*/libclang-[0-9]*.so* /usr/lib64/libclang.so*; do
	if [ -e "$lib" ]; then found=yes; fi
done
if [ -z "$found" ] && [ -z "${LIBCLANG_PATH:-}" ]; then missing="$missing libclang-dev"; fi

# What tests need beyond that: broken networks, real brokers and stores.
tests=""
PATH="$PATH:/usr/sbin:/sbin"
command -v ip >/dev/null 2>&1 || tests="$tests iproute2"
command -v nft >/dev/null 2>&1 || tests="$tests nftables"
command -v openssl >/dev/null 2>&1 || tests="$tests openssl"
if [ -z "${JAVA_HOME:-}" ] && ! command -v java >/dev/null 2>&1; then tests="$tests default-jre-headless"; fi
if [ -z "${KAFKA_HOME:-}" ] && ! command -v mvn >/dev/null 2>&1; then tests="$tests maven"; fi
servers=""
command -v mosquitto >/dev/null 2>&1 || servers="$servers mosquitto"
command -v redis-server >/dev/null 2>&1 || servers="$servers redis-server"
tests="$tests$servers"
if [ -z "$missing$tests" ]; then exit 0; fi

if ! command -v apt-get >/dev/null 2>&1; then
	if [ -n "$tests" ]; then echo "Tests that lack these packages (Debian's names) will say so and not run:$tests" >&2; fi
	if [ -z "$missing" ]; then exit 0; fi
	echo "EdgeFlow needs these packages (Debian's names):$missing. Please install them with your system's tool." >&2
	exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then sudo="sudo"; fi
echo "installing$missing$tests"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq $missing $tests

# Tests start the servers themselves, on ports of their own. The packages' services are not wanted, and only those that
# came just now are ours to stop.
for server in $servers; do
	if [ -d /run/systemd/system ]; then
		$sudo systemctl disable --now --quiet "$server"
	else
		$sudo service "$server" stop >/dev/null 2>&1 || true
		$sudo update-rc.d "$server" disable >/dev/null 2>&1 || true
	fi
done
