#!/usr/bin/env bash
# Hours of batches with the shipped model, watched for drift:
#   tools/soak.sh KINORA FOLDER HOURS [DEVICE]
# Two things run side by side, each with one compute thread, until HOURS are over:
# - one long-lived `kinora batch` of thousands of small jobs, sampled every 10 s (2 s on a GPU) -> FOLDER/long.tsv
#   (seconds, jobs done, VmRSS kB, VmHWM kB, VmData kB, open descriptors, threads, MiB on the GPU as the driver
#   counts them or -);
# - fresh processes, one batch of every kind of job each; every second one is killed with SIGKILL at a
#   random moment and resumed -> FOLDER/fresh.tsv (iteration, seconds, peak kB, most descriptors seen,
#   outputs compared, outputs that differ, killed after ms).
# Every output is compared by SHA-256 with the first of its kind. FOLDER/summary.txt has the verdict; the
# exit code is 0 only if every hash is as expected, descriptors end where they began, and the long-lived
# process's peak memory in the last half is at most 2 % above that of the first half (allocator noise; a
# leak of one frame of a job, 70 kB, would add 100 MB over two hours). On a GPU the driver's count of MiB has no high-water
# mark, and a sample that falls inside a job sees its working memory by chance: what is compared is the floor, the least of
# any sample. A failure is a floor of the last half above that of the first, counted from the first job of every kind on
# (kernels are loaded when first used), or a last quarter above the second. DEVICE is cpu unless given.
# tools/plot_soak.py draws it.
set -euo pipefail
kinora=$(realpath "$1")
model=$(realpath "$(dirname "$0")/../demo/model")
mkdir -p "$2"
cd "$2"
hours=$3 device=${4:-cpu}
every=10
[ "$device" = cpu ] || every=2
repeats=600
deadline=$(awk -v now="$(date +%s)" -v h="$hours" 'BEGIN { printf "%d", now + h * 3600 }')

kinds() { # SUFFIX: one job of every kind
  cat <<YAML
  - {name: native-$1}
  - {name: longer-$1, size: 128x96, frames: 17, solver: dpm++, preview: "{name}.now.png"}
  - {name: window-$1, refine-size: 2x}
  - {name: tile3d-$1, refine-size: 2x, attention: tile3d}
  - {name: cross-$1, refine-size: 2x, attention: cross}
  - {name: draft-$1, refine-size: 2x, attention: draft}
  - {name: permute-$1, refine-size: 2x, attention: permute, base-attention: permute}
  - {name: paro-$1, refine-size: 2x, attention: paro}
  - {name: latent-$1, refine-size: 2x, upscale: latent, solver: euler}
  - {name: dense-$1, refine-size: 2x, attention: dense}
  - {name: ffv1-$1, output: "{name}.mkv", codec: ffv1, refine-size: "96x64,2x", upscale: lanczos, override: false}
  - {name: png-$1, frames-dir: "{name}.frames", contact-sheet: "{name}.sheet.png", latents-out: "{name}.latents.safetensors"}
  - {name: video-$1, input: "clip.mkv", overlap: 1, strength: 0.5, output: "{name}.mkv", codec: ffv1}
YAML
}
head_of_file() {
  echo "defaults: {model: \"$model\", prompt: a big red ball bouncing over grass under a blue sky, steps: 4, frames: 9, size: 96x64, threads: 1, seed: 3, device: $device}"
  echo "jobs:"
}
# The outputs of a folder: kind, the file's name without the repeat, SHA-256. Sidecars hold times and
# previews depend on the clock: they are not compared.
hashes() {
  (cd "$1" && find . -type f \( -name '*.mp4' -o -name '*.mkv' -o -name '*.png' -o -name '*.safetensors' \) \
    ! -name '*.now.png' ! -name '*checkpoint*' -exec sha256sum {} + |
    sed -E 's|^([0-9a-f]+)  \./([a-z0-9]+)-[0-9]+(.*)$|\2\3 \1|' | LC_ALL=C sort -u)
}

"$kinora" render -m "$model" -p "a small yellow star rising over water" --seed 9 --steps 4 --size 96x64 --frames 17 \
  --codec ffv1 -o clip.mkv -y -t 1 --device "$device" --progress none
{ head_of_file; kinds 0; } >fresh.yaml
{ head_of_file; for r in $(seq $repeats); do kinds "$r"; done; } >long.yaml
rm -rf long first fresh long.tsv fresh.tsv summary.txt
"$kinora" batch fresh.yaml --output-dir first --progress none >first.log 2>&1
kinds=$(grep -c '^  - {name' fresh.yaml)
hashes first >expected.txt

echo "# seconds jobs rss_kb hwm_kb data_kb descriptors threads gpu_mib" >long.tsv
start=$(date +%s)
"$kinora" batch long.yaml --output-dir long --progress none >long.log 2>&1 &
long=$!
trap 'kill $long 2>/dev/null || true' EXIT
(
  while kill -0 $long 2>/dev/null; do
    fds=$(ls /proc/$long/fd 2>/dev/null | wc -l || true) # it may end meanwhile
    jobs=$(grep -c '"status":"done"' long/results.jsonl 2>/dev/null || true)
    gpu=-
    [ "$device" = cpu ] || gpu=$(nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader,nounits | awk -F ', ' -v p=$long '$1 == p { print $2 }')
    awk -v t="$(($(date +%s) - start))" -v j="${jobs:-0}" -v f="$fds" -v g="${gpu:--}" '/^VmRSS/ { r = $2 } /^VmHWM/ { h = $2 }
      /^VmData/ { d = $2 } /^Threads/ { n = $2 } END { if (h) print t, j, r, h, d, f, n, g }' /proc/$long/status 2>/dev/null >>long.tsv || true
    sleep $every
  done
) &
sampler=$!

echo "# iteration seconds peak_kb descriptors outputs different killed_after_ms" >fresh.tsv
i=0
failed=0
while [ "$(date +%s)" -lt "$deadline" ]; do
  i=$((i + 1))
  rm -rf fresh
  begun=$(date +%s.%N)
  killed=0
  if [ $((i % 2)) = 0 ]; then
    killed=$((RANDOM % 20000 + 1))
    code=0
    timeout -s KILL "$(awk -v m=$killed 'BEGIN { print m / 1000 }')" "$kinora" batch fresh.yaml --output-dir fresh --resume --progress none >fresh.log 2>&1 || code=$?
    [ "$code" = 0 ] || [ "$code" = 137 ] || { echo "iteration $i: exit code $code before the kill" >>errors.txt; failed=$((failed + 1)); }
  fi
  "$kinora" batch fresh.yaml --output-dir fresh --resume --progress none >fresh.log 2>&1 &
  pid=$!
  fds=0 peak=0
  while kill -0 $pid 2>/dev/null; do
    now=$(ls /proc/$pid/fd 2>/dev/null | wc -l || true)
    [ "$now" -le $fds ] || fds=$now
    now=$(awk '/^VmHWM/ { print $2 }' /proc/$pid/status 2>/dev/null || true)
    [ "${now:-0}" -le $peak ] || peak=$now
    sleep 0.3
  done
  wait $pid || { echo "iteration $i: $(tail -1 fresh.log)" >>errors.txt; failed=$((failed + 1)); }
  hashes fresh >found.txt
  different=$(comm -3 expected.txt found.txt | wc -l)
  [ "$different" = 0 ] || { failed=$((failed + 1)); comm -3 expected.txt found.txt >>errors.txt; }
  awk -v i=$i -v s="$(awk -v a="$begun" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')" -v p=$peak -v f=$fds \
    -v o="$(wc -l <found.txt)" -v d="$different" -v k=$killed 'BEGIN { print i, s, p, f, o, d, k }' >>fresh.tsv
done

# The long one ends as a user ends it: a signal, exit code 130, nothing half-written.
kill -TERM $long 2>/dev/null || true
code=0
wait $long || code=$?
trap - EXIT
wait $sampler || true
[ "$code" = 130 ] || [ "$code" = 0 ] || { echo "the long-lived process: exit code $code" >>errors.txt; failed=$((failed + 1)); }
find long -name '*checkpoint*' -delete # of the job that the signal stopped
hashes long >found.txt
comm -13 expected.txt found.txt >surplus.txt
[ ! -s surplus.txt ] || { failed=$((failed + 1)); cat surplus.txt >>errors.txt; }

{
  awk -v kinds="$kinds" -v gpu="$([ "$device" = cpu ] || echo 1)" '!/^#/ { n++; t[n] = $1; j = done[n] = $2; h[n] = $4; f[n] = $6; r[n] = $3; g[n] = $8; if ($6 > fm) fm = $6 }
    END { half = int((n + 1) / 2)
      printf "long-lived process: %.2f h, %d jobs, %d samples\n", t[n] / 3600, j, n
      printf "  peak memory: %d kB after the first half, %d kB at the end (%+.2f %%)\n", h[half], h[n], 100 * (h[n] / h[half] - 1)
      for (i = int(n / 4) + 1; i <= half; i++) { a += r[i]; an++ } for (i = half + 1; i <= n; i++) { b += r[i]; bn++ }
      printf "  mean resident memory: second quarter %d kB, last half %d kB (%+.2f %%)\n", a / an, b / bn, 100 * (b / bn / (a / an) - 1)
      m1 = 999; m2 = 999; for (i = 1; i <= half; i++) if (done[i] > 0 && f[i] < m1) m1 = f[i]; for (i = half + 1; i <= n; i++) if (f[i] < m2) m2 = f[i]
      printf "  descriptors: least %d in the first half, least %d in the last half, most %d\n", m1, m2, fm
      for (i = 1; i <= n; i++) if (g[i] + 0 && done[i] >= kinds) {
        seen++; if (g[i] > most) most = g[i]
        q = int(4 * (i - 1) / n) + 1; if (!(q in least) || g[i] < least[q]) least[q] = g[i] }
      for (q = 1; q <= 4; q++) if (q in least) if (q <= 2) g1 = g1 && g1 < least[q] ? g1 : least[q]; else g2 = g2 && g2 < least[q] ? g2 : least[q]
      if (seen) printf "  on the GPU, after the first %d jobs, %d samples: least MiB by quarter of the run %s %s %s %s, most %d\n", kinds, seen, least[1] + 0 ? least[1] : "-", least[2] + 0 ? least[2] : "-", least[3], least[4], most
      gpu_flat = !seen && !gpu || g1 && g2 && g2 <= g1 && least[4] <= least[2]
      exit !(h[n] <= 1.02 * h[half] && m2 <= m1 && gpu_flat) }' long.tsv && echo "  flat: yes" || { echo "  flat: NO"; failed=$((failed + 1)); }
  echo "  outputs: $(find long -name 'png-*' -name '*.png' | wc -l) PNG, $(find long -name '*.mp4' | wc -l) mp4, $(find long -name '*.mkv' | wc -l) mkv, $(find long -name '*.safetensors' | wc -l) latents; kinds of hash not expected: $(wc -l <surplus.txt)"
  awk '!/^#/ { n++; if (!lo || $3 < lo) lo = $3; if ($3 > hi) hi = $3; if ($7) k++; if ($4 > f) f = $4; o += $5; d += $6 }
    END { printf "fresh processes: %d iterations, %d killed and resumed, peak memory %d to %d kB, at most %d descriptors, %d outputs compared, %d differ\n", n, k, lo, hi, f, o, d }' fresh.tsv
  echo "failures: $failed"
} >summary.txt
cat summary.txt
[ "$failed" = 0 ] && grep -q 'flat: yes' summary.txt
