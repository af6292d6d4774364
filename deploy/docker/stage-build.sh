#!/bin/sh
# Builds the programs from the sources in the current folder: COMMIT, CUDA (ON or OFF), OUT.
set -eu
# The preset names the architectures: what is built without it runs on two kinds of cards only.
preset=release
[ "$2" = ON ] && preset=cuda-release
cmake --preset "$preset" -B /tmp/build -DTANDEM_BUILD_TESTS=OFF -DTANDEM_COMMIT="$1" \
  -DTANDEM_CUDA="$2" -Wno-dev
cmake --build /tmp/build --target tandem tandem-gateway tandem-draft tandem-target
mkdir -p "$3/bin"
for program in tandem tandem-gateway tandem-draft tandem-target; do
  strip -o "$3/bin/$program" "/tmp/build/bin/$program"
done
