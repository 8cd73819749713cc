#!/usr/bin/env bash
# Installs what is missing, builds, runs every test, and ends with the test runner's own summary.
#   ./test.sh [ctest arguments, such as -L unit or -R safetensors]
set -euo pipefail
cd "$(dirname "$0")"

bash tools/install_deps.sh --tests
# The option decides, not a cache left by demo.sh in the same folder.
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DKN_TESTS=ON -DKN_BENCH=ON >/dev/null
cmake --build build
ctest --test-dir build --output-on-failure --timeout 1200 "$@"
