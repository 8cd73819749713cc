#!/usr/bin/env bash
# A failing machine, from outside the program:
#   tools/faults.sh KINORA FOLDER [KILLS [CLOCK_MODULE [PARTS]]]     PARTS: kills,disk,checkpoints,models,folder,limits
# - KILLS random SIGKILLs and SIGTERMs (200) over render, refine and batch, each followed by --resume
# - a disk that is full after every so many bytes (a file-size limit), and a small tmpfs where one can be mounted
# - checkpoints cut anywhere and with flipped bits; model weights likewise
# - the output folder removed in the middle
# - a clock that jumps (CLOCK_MODULE: build/tests/libfault_clock.so)
# - too few descriptors, too little memory, a plan above --memory
# After each: a documented exit code, one message, no final name on anything but the undisturbed bytes.
# Calls that fail one by one inside the process: build/tests/fault_pipeline_points full.
# FOLDER is made and keeps the log. Exit code 0: nothing was wrong.
set -euo pipefail
export LC_ALL=C
kinora=$(realpath "$1")
model=$(realpath "$(dirname "$0")/../demo/model")
kills=${3:-200}
clock=${4:-}
quick=$((kills < 20)) # the ctest: fewer sizes of everything
parts=,${5:-kills,disk,checkpoints,models,folder,limits},
[ -z "$clock" ] || clock=$(realpath "$clock")
mkdir -p "$2"
cd "$2"
bad=0

wants() { [[ $parts == *,$1,* ]]; }
wrong() { # what
  bad=$((bad + 1))
  echo "WRONG: $*"
}

# The three jobs; each writes into the folder it is started in.
common=(--model "$model" --seed 4 --threads 2 --progress none)
job() { # NAME [more options]
  case $1 in
  render) "$kinora" render "${common[@]}" -p "a ball" --size 64x48 --frames 9 --steps 6 --refine-size 96x64 --frames-dir png -o x.mp4 -y "${@:2}" ;;
  refine) "$kinora" refine ../clip.mkv "${common[@]}" --frames 9 --overlap 1 --steps 4 --strength 0.5 --codec ffv1 -o x.mkv -y "${@:2}" ;;
  batch) "$kinora" batch ../jobs.yaml --output-dir . --progress none "${@:2}" ;;
  esac
}
cat >jobs.yaml <<YAML
defaults: {model: "$model", steps: 4, frames: 9, size: 64x48, threads: 2, seed: 2}
jobs:
  - {prompt: a ball, name: a}
  - {prompt: a star, name: b, refine-size: 96x64, attention: draft, output: b.mkv, codec: ffv1}
  - {prompt: a cube, name: c, contact-sheet: c.png}
YAML
"$kinora" render "${common[@]}" -p "a star" --size 64x48 --frames 17 --steps 4 --codec ffv1 -o clip.mkv -y 2>/dev/null

finals() { # every file that has its final name, with its hash; sidecars hold times
  find . -type f \( -name '*.mp4' -o -name '*.mkv' -o -name '*.png' -o -name '*.safetensors' \) ! -name '*.checkpoint.*' ! -name '.*' \
    -exec sha256sum {} + | sort
}
declare -A seconds
for name in render refine batch; do
  rm -rf "whole-$name" && mkdir "whole-$name"
  start=$(date +%s.%N)
  (cd "whole-$name" && job $name >log.txt 2>&1 && finals >../whole-$name.txt) || { echo "$name, undisturbed, fails: $(cat whole-$name/log.txt)"; exit 2; }
  seconds[$name]=$(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')
done

# In a job's folder: what is there must be a part of the undisturbed outputs (all of them: `all`).
check_finals() { # NAME WHAT [all]
  finals >found.txt
  local extra missing
  extra=$(comm -13 "../whole-$1.txt" found.txt | head -3)
  [ -z "$extra" ] || wrong "$2: other bytes under a final name: $extra"
  if [ "${3:-}" = all ]; then
    missing=$(comm -23 "../whole-$1.txt" found.txt | head -3)
    [ -z "$missing" ] || wrong "$2: missing: $missing"
  fi
}
documented() { # CODE WHAT
  case $1 in 0 | 1 | 2 | 3 | 4 | 5 | 6 | 130) ;; *) wrong "$2: exit code $1: $(tail -2 err.txt)" ;; esac
}
said_why() { # CODE WHAT: one line that names what is wrong
  [ "$1" = 0 ] || [ "$1" = 1 ] || [ "$(grep -c '^kinora: ' err.txt)" = 1 ] || wrong "$2: no single message: $(cat err.txt)"
}
fresh() {
  rm -rf work
  mkdir work
  cd work
}

damage() { # NAME OFFSET: flip one bit
  python3 - "$1" "$2" $((RANDOM % 8)) <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2])); b = f.read(1)[0] ^ 1 << int(sys.argv[3])
    f.seek(int(sys.argv[2])); f.write(bytes([b]))
PY
}
rounds=$((kills / 2 < 10 ? 10 : kills / 2 > 100 ? 100 : kills / 2))

# ---- kills --------------------------------------------------------------------------------------
try_kills() {
  done_kills=0 resumes=0 early=0
  names=(render refine batch)
  round=0
  while [ $done_kills -lt "$kills" ]; do
    name=${names[$((round % 3))]}
    round=$((round + 1))
    fresh
    # up to three kills of one job, then it may finish
    for attempt in 1 2 3 4; do
      job $name --resume >out.txt 2>err.txt &
      pid=$!
      signal=KILL
      if [ $attempt = 4 ]; then
        signal=none
      else
        [ $((RANDOM % 3)) != 0 ] || signal=TERM
        sleep "$(awk -v s="${seconds[$name]}" -v r=$RANDOM 'BEGIN { printf "%.3f", s * 1.05 * r / 32768 }')"
        # `job` runs in a subshell of this one: its child is the program
        child=$(cat /proc/$pid/task/$pid/children 2>/dev/null | tr -d ' ' || true)
        target=${child:-$pid}
        if kill -$signal "$target" 2>/dev/null; then done_kills=$((done_kills + 1)); else early=$((early + 1)); fi
      fi
      code=0
      wait $pid 2>/dev/null || code=$?
      case $signal in
      TERM) [ $code = 0 ] || [ $code = 130 ] || [ $code = 143 ] || wrong "kill $done_kills, $name, SIGTERM: exit code $code: $(tail -2 err.txt)" ;;
      none) [ $code = 0 ] || wrong "after kill $done_kills, $name: --resume ends with $code: $(tail -2 err.txt)" ;;
      esac
      [ $attempt = 1 ] || resumes=$((resumes + 1))
      check_finals $name "kill $done_kills, $name" "$([ $code = 0 ] && [ $signal != KILL ] && echo all || true)"
      [ $code != 0 ] || [ $signal = KILL ] || break
    done
    cd ..
  done
  echo "kills: $done_kills (random, SIGKILL and SIGTERM) over render, refine and batch, $early came after the end; $resumes resumes; wrong so far: $bad"
}

# ---- a full disk --------------------------------------------------------------------------------
try_disk() {
  # A limit on the size of a file stops writes as a full disk does: after N blocks of 1024 bytes.
  points=0
  local sizes="1 2 3 4 6 8 12 16 24 32 48 64 96 128"
  [ $quick = 0 ] || sizes="8 64"
  for name in render refine batch; do
    for blocks in $sizes; do
      fresh
      code=0
      (ulimit -f $blocks && job $name) >out.txt 2>err.txt || code=$?
      documented $code "file-size limit of $blocks KiB, $name"
      [ $blocks -lt 3 ] || said_why $code "file-size limit of $blocks KiB, $name" # err.txt itself is cut below that
      check_finals $name "file-size limit of $blocks KiB, $name"
      [ -z "$(find . -name '*.tmp-*')" ] || wrong "file-size limit of $blocks KiB, $name: left behind: $(find . -name '*.tmp-*')"
      code=0
      job $name --resume >out.txt 2>err.txt || code=$?
      [ $code = 0 ] || wrong "file-size limit of $blocks KiB, $name: --resume ends with $code: $(tail -1 err.txt)"
      check_finals $name "file-size limit of $blocks KiB, $name, resumed" all
      points=$((points + 1))
      cd ..
    done
  done
  echo "file-size limits: $points; wrong so far: $bad"
  points=0
  mkdir -p small
  local room="4 16 32 64 96 128 192 256 384"
  [ $quick = 0 ] || room="32 128"
  for kib in $room; do
    if ! mount -t tmpfs -o size=${kib}k kn-small small 2>/dev/null; then
      echo "small tmpfs: cannot be mounted here, not tried"
      break
    fi
    for name in render refine batch; do
      rm -rf small/* 2>/dev/null || true
      mkdir small/job && cd small/job
      ln -s ../clip.mkv ../jobs.yaml ../ # of the disk outside
      code=0
      job $name >../../out.txt 2>../../err.txt || code=$?
      finals >../../found.txt
      cd ../..
      case $code in 0 | 1 | 3) ;; *) wrong "tmpfs of $kib KiB, $name: exit code $code: $(tail -1 err.txt)" ;; esac
      [ -z "$(comm -13 whole-$name.txt found.txt)" ] || wrong "tmpfs of $kib KiB, $name: other bytes under a final name"
      points=$((points + 1))
    done
    umount small
  done
  echo "small tmpfs: $points runs; wrong so far: $bad"
}

# ---- damaged checkpoints ------------------------------------------------------------------------
try_checkpoints() {
  fresh
  job render --keep-checkpoint >out.txt 2>err.txt
  mv x.mp4.checkpoint.safetensors ../checkpoint
  cd ..
  size=$(stat -c %s checkpoint)
  errors=0 unseen=0
  for i in $(seq $rounds); do
    fresh
    cp ../checkpoint x.mp4.checkpoint.safetensors
    if [ $((i % 3)) = 0 ]; then
      what="cut"
      truncate -s $(((RANDOM * 32768 + RANDOM) % size)) x.mp4.checkpoint.safetensors
    else
      what="a flipped bit"
      at=$(((RANDOM * 32768 + RANDOM) % size))
      [ $((i % 3)) = 1 ] || at=$((RANDOM % 2048)) # the header
      damage x.mp4.checkpoint.safetensors $at
    fi
    code=0
    job render --resume >out.txt 2>err.txt || code=$?
    case $code in
    0) unseen=$((unseen + 1)); check_finals render "checkpoint with $what" all ;; # a bit that says nothing
    2 | 3) errors=$((errors + 1)); said_why $code "checkpoint with $what"; check_finals render "checkpoint with $what" ;;
    *) wrong "checkpoint with $what: exit code $code: $(tail -1 err.txt)" ;;
    esac
    cd ..
  done
  echo "damaged checkpoints: $rounds, $errors refused, $unseen without consequence; wrong so far: $bad"
}

# ---- damaged model ------------------------------------------------------------------------------
try_models() {
  refused=0 nan=0 through=0 tried=0
  rm -rf model && cp -rL "$model/." model
  for part in transformer/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.safetensors text_encoder/model.safetensors tokenizer/spiece.model; do
    bytes=$(stat -c %s "model/$part")
    for i in $(seq $((rounds / 5))); do
      cp "$model/$part" "model/$part"
      if [ $((i % 2)) = 0 ]; then truncate -s $(((RANDOM * 32768 + RANDOM) % bytes)) "model/$part"; else damage "model/$part" $((RANDOM % (bytes < 20000 ? bytes : 20000))); fi
      fresh
      code=0
      "$kinora" render -m ../model -p "a ball" --seed 1 --size 32x32 --frames 5 --steps 1 --progress none -o x.mp4 >out.txt 2>err.txt || code=$?
      case $code in 0) through=$((through + 1)) ;; 6) nan=$((nan + 1)) ;; 3 | 5) refused=$((refused + 1)) ;; *) wrong "damaged $part: exit code $code: $(tail -1 err.txt)" ;; esac
      said_why $code "damaged $part"
      [ $code = 0 ] || [ ! -e x.mp4 ] || wrong "damaged $part: an output in spite of exit code $code"
      tried=$((tried + 1))
      cd ..
    done
    cp "$model/$part" "model/$part"
  done
  echo "damaged models (half cut, half a bit flipped in the first 20000 bytes): $tried, $refused refused, $nan NaN, $through rendered; wrong so far: $bad"
}

# ---- the output folder goes away ----------------------------------------------------------------
try_folder() {
  points=0
  local moments="1 2 3 4"
  [ $quick = 0 ] || moments=2
  for name in render refine batch; do
    for part in $moments; do
      rm -rf work && mkdir work
      cp clip.mkv jobs.yaml work/ # each job is started one folder deeper
      mkdir work/in
      (cd work/in && job $name) >out.txt 2>err.txt &
      pid=$!
      sleep "$(awk -v s="${seconds[$name]}" -v p=$part 'BEGIN { print s * p / 5 }')"
      rm -rf work/in || true
      code=0
      wait $pid || code=$?
      documented $code "folder removed, $name"
      said_why $code "folder removed, $name"
      points=$((points + 1))
    done
  done
  echo "output folder removed: $points; wrong so far: $bad"
}

# ---- clock, descriptors, memory -----------------------------------------------------------------
try_limits() {
  if [ -n "$clock" ]; then
    for name in render refine batch; do
      fresh
      code=0
      (export LD_PRELOAD=$clock && job $name) >out.txt 2>err.txt || code=$?
      [ $code = 0 ] || wrong "jumping clock, $name: exit code $code: $(tail -1 err.txt)"
      check_finals $name "jumping clock, $name" all
      cd ..
    done
    echo "clock that jumps: 3 jobs; wrong so far: $bad"
  fi
  points=0
  for name in render refine batch; do
    for n in $(seq 4 $((1 + 4 * quick)) 14); do
      fresh
      code=0
      (ulimit -n "$n" && job $name) >out.txt 2>err.txt || code=$?
      [ $code = 127 ] && [ "$n" -lt 6 ] && { cd ..; continue; } # the loader itself found no descriptor
      documented $code "$n descriptors, $name"
      said_why $code "$n descriptors, $name"
      check_finals $name "$n descriptors, $name" "$([ $code = 0 ] && echo all || true)"
      points=$((points + 1))
      cd ..
    done
  done
  echo "descriptors exhausted: $points; wrong so far: $bad"
  points=0
  for mib in 80 120 160 200 240 280 320 400 500 700 1000 2000; do
    fresh
    code=0
    (ulimit -v $((mib * 1024)) && job render) >out.txt 2>err.txt || code=$?
    [ $code = 127 ] && { cd ..; continue; } # the loader found no room for the libraries
    documented $code "$mib MiB of address space"
    said_why $code "$mib MiB of address space"
    check_finals render "$mib MiB of address space"
    points=$((points + 1))
    cd ..
  done
  fresh
  code=0
  job render --memory 0.01 >out.txt 2>err.txt || code=$?
  [ $code = 4 ] && grep -qE 'GB|GiB' err.txt || wrong "--memory 0.01: exit code $code: $(tail -1 err.txt)"
  [ -z "$(finals)" ] || wrong "--memory 0.01: wrote $(finals)"
  cd ..
  echo "memory limits: $points of the address space, 1 of the plan; wrong so far: $bad"
}

for part in kills disk checkpoints models folder limits; do
  if wants $part; then try_$part; fi
done
echo "wrong in all: $bad"
[ $bad = 0 ]
