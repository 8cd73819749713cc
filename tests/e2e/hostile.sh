#!/usr/bin/env bash
# Some 140 hostile files: message, exit code, memory and time of each. See tools/hostile.py.
source "$(dirname "$0")/lib.sh" "$@"
command -v python3 >/dev/null || exit 77
limits=()
! grep -qs '^KN_SANITIZE:STRING=.' "$(dirname "$kinora")/CMakeCache.txt" || limits=(--sanitizer) # shadow memory
python3 "$tree/tools/hostile.py" "$kinora" --tree "$tree" "${limits[@]}" >cases.txt || fail "$(cat cases.txt)"
tail -1 cases.txt
