#!/bin/sh
# Packages of a stage: `build` or `run`. Debian 12 and Ubuntu 24.04.
set -eu
export DEBIAN_FRONTEND=noninteractive

build="g++ cmake ninja-build pkg-config libgrpc++-dev libgrpc-dev protobuf-compiler-grpc
  protobuf-compiler libprotobuf-dev libabsl-dev prometheus-cpp-dev libcivetweb-dev
  nlohmann-json3-dev libcli11-dev libspdlog-dev libhwy-dev libutf8proc-dev libpcre2-dev"

# The names of shared libraries end in the version of their interface, which differs.
. /etc/os-release
case "$ID-$VERSION_ID" in
  debian-12) run="libgrpc++1.51 libprotobuf32 libprometheus-cpp-core1.0 libprometheus-cpp-pull1.0
    libspdlog1.10 libhwy1 libutf8proc2 libpcre2-8-0 tini" ;;
  ubuntu-24.04) run="libgrpc++1.51t64 libprotobuf32t64 libprometheus-cpp-core1.0
    libprometheus-cpp-pull1.0 libspdlog1.12 libhwy1t64 libutf8proc3 libpcre2-8-0 tini" ;;
  *) echo "no list of packages for $PRETTY_NAME" >&2; exit 1 ;;
esac

case "$1" in
  build) packages=$build ;;
  run) packages=$run ;;
  *) echo "build or run, not $1" >&2; exit 2 ;;
esac

apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages
rm -rf /var/lib/apt/lists/*
