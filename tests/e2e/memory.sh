#!/usr/bin/env bash
# The memory plan of a CPU render is what the process takes at most (VmHWM), within 10 %, at two sizes and
# with a codec that needs more than the picture.
source "$(dirname "$0")/lib.sh" "$@"
# Sanitizers take memory of their own for every byte.
if grep -q '^KN_SANITIZE:STRING=.' "$(dirname "$kinora")/CMakeCache.txt"; then echo "skipped: a sanitizer build" >&2; exit 77; fi

# check NAME OUTPUT OPTIONS...
check() {
  local name=$1 out=$2
  shift 2
  "$kinora" plan "${quick[@]}" --steps 2 --device cpu --threads 2 --progress lines "$@" -o "$out" >plan.txt 2>&1 || fail "plan: $(cat plan.txt)"
  python3 - "$name" "$kinora" render "${quick[@]}" --steps 2 --device cpu --threads 2 "$@" -o "$out" <<'PY' || fail "$name: $(cat plan.txt)"
import re, resource, subprocess, sys
planned = max(float(m) for m in re.findall(r"^(?!budget)\S.*? +([0-9.]+) GiB$", open("plan.txt").read(), re.M))
subprocess.run(sys.argv[2:], check=True)
taken = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
print(f"{sys.argv[1]}: planned {planned:.3f} GiB, taken {taken:.3f}, ratio {planned / taken:.3f}")
assert 0.9 < planned / taken < 1.1
PY
}

check 2x x2.mp4 --refine-size 2x
check 4x x4.mp4 --refine-size 4x
check '2x in VP9' x.webm --refine-size 2x
expect_error 4 'takes at least' "$kinora" plan "${quick[@]}" --refine-size 2x --memory 0.1 -o x.mp4
