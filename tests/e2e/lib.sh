# Shared by the end-to-end tests: sourced, not run. Each test gets the program and the source tree as
# arguments, works in a fresh folder, and fails on the first broken expectation.
set -euo pipefail
kinora=$1
tree=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
model=$tree/demo/model

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# expect_error EXIT_CODE 'text the message must hold' command...
expect_error() {
  local code=$1 text=$2 got=0
  shift 2
  "$@" >stdout.txt 2>stderr.txt || got=$?
  [ "$got" = "$code" ] || fail "exit code $got, expected $code: $* -- $(cat stderr.txt)"
  grep -qF -- "$text" stderr.txt || fail "message without '$text': $* -- $(cat stderr.txt)"
}

# has 'text' command...: the command's output holds the text. (Not `command | grep -q`: grep would leave
# early and pipefail report the broken pipe.)
has() {
  local text=$1
  shift
  "$@" >has.txt 2>&1 || return 1
  grep -qE -- "$text" has.txt
}

# A small, quick render: 9 frames, 4 steps.
quick=(--model "$model" --prompt "a red ball bouncing over grass" --seed 3 --steps 4 --frames 9 --progress none)
