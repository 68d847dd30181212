#!/bin/sh
# Installs what a fresh Debian 12 with rustup lacks to build EdgeFlow: a C++ compiler, make, libclang (RocksDB's
# bindings), protoc (the raft crate's messages), ip and nft (tests of broken networks). Does nothing where all of it is
# there. Elsewhere it says what is missing.
set -eu

missing=""
command -v cc >/dev/null 2>&1 || missing="$missing gcc"
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
command -v make >/dev/null 2>&1 || missing="$missing make"
command -v protoc >/dev/null 2>&1 || missing="$missing protobuf-compiler"
# For the tests of broken networks.
PATH="$PATH:/usr/sbin:/sbin"
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v nft >/dev/null 2>&1 || missing="$missing nftables"
found=""
for lib in /usr/lib/llvm-*/lib/libclang.so* /usr/lib/llvm-*/lib/libclang-*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang.so*; do
	if [ -e "$lib" ]; then found=yes; fi
done
if [ -z "$found" ] && [ -z "${LIBCLANG_PATH:-}" ]; then missing="$missing libclang-dev"; fi
if [ -z "$missing" ]; then exit 0; fi

if ! command -v apt-get >/dev/null 2>&1; then
	echo "EdgeFlow needs these packages (Debian's names):$missing. Please install them with your system's tool." >&2
	exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then sudo="sudo"; fi
echo "installing$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq $missing
