#!/usr/bin/env bash
# Installs what Kinora needs to build and run on Debian or Ubuntu; --tests: to be tested as well, --package: to be
# packed by CPack. Installed packages are left alone.
set -euo pipefail

packages=(
  build-essential cmake ninja-build pkg-config
  libdnnl-dev libpng-dev libjansson-dev libyaml-dev
  libavformat-dev libavcodec-dev libavutil-dev
  libcmocka-dev
)
# Ubuntu's oneDNN package has had two names.
if ! apt-cache show libdnnl-dev >/dev/null 2>&1 && apt-cache show libonednn-dev >/dev/null 2>&1; then
  packages=("${packages[@]/libdnnl-dev/libonednn-dev}")
fi
# ffmpeg is not used by Kinora itself; the end-to-end tests look at its videos with ffprobe.
[ "${1:-}" = --tests ] && packages+=(ffmpeg)
# Their completion is tried in them.
[ "${1:-}" = --tests ] && packages+=(zsh fish)
# CPack looks at what it packs with file(1).
[ "${1:-}" = --package ] && packages+=(file)
# The tests read JSON with python3, from wherever it comes.
[ "${1:-}" = --tests ] && ! command -v python3 >/dev/null && packages+=(python3)

missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "install_deps.sh knows Debian and Ubuntu; install by hand: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "run as root, or install by hand: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
