#!/usr/bin/env bash
# One command from a clean clone to a video: installs what is missing, builds, renders.
#   ./demo.sh ["a big red striped ball bouncing over grass under a blue sky"]
set -euo pipefail
cd "$(dirname "$0")"
prompt=${1:-"a big red striped ball bouncing over grass under a blue sky"}

bash tools/install_deps.sh
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DKN_TESTS=OFF -DKN_BENCH=OFF >/dev/null
cmake --build build

mkdir -p out
build/kinora render --model demo/model --prompt "$prompt" --seed 7 --overwrite \
  --output out/demo.mp4 --contact-sheet out/demo.png
echo "video:         $PWD/out/demo.mp4"
echo "contact sheet: $PWD/out/demo.png"
