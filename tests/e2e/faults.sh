#!/usr/bin/env bash
# A failing machine, in little: kills at random moments, file-size limits, damaged checkpoints, a clock that
# jumps, few descriptors, little memory. tools/faults.sh does it at length.
source "$(dirname "$0")/lib.sh" "$@"
clock=$(dirname "$kinora")/tests/libfault_clock.so
if [ -e "$clock" ]; then
  bash "$tree/tools/faults.sh" "$kinora" "$work/faults" 6 "$clock" kills,disk,checkpoints,folder,limits
else # built with a sanitizer, which needs address space without a limit
  bash "$tree/tools/faults.sh" "$kinora" "$work/faults" 6 "" kills,disk,checkpoints,folder
fi
