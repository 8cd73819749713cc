#!/usr/bin/env bash
# Batches: 12 jobs of which 2 are bad, undisturbed and killed twice; two processes on one folder; shards;
# matrices, prompt files and tables.
source "$(dirname "$0")/lib.sh" "$@"

cat >jobs.yaml <<YAML
defaults:
  model: $model
  steps: 4
  frames: 9
jobs:
  - prompt: a big red ball bouncing over grass
    matrix:
      seed: 1..3
      guidance: [3, 5]
  - prompt: a small yellow star rising over water
    seed: 4
    name: star
  - prompt: a bad length
    frames: 10
    name: bad-length
  - prompt: a green triangle over snow
    matrix: {seed: [5, 6]}
  - prompt: a bad size
    width: 3
    name: bad-size
  - prompt: a blue square over sand
    preset: draft
    seed: 9
    frames: 9
    name: square
YAML
batch=("$kinora" batch jobs.yaml --progress none)

code=0
"${batch[@]}" --output-dir whole >whole.txt 2>whole.err || code=$?
[ "$code" = 1 ] || fail "exit code $code of a batch with bad jobs: $(cat whole.err)"
[ "$(ls whole/*.mp4 | wc -l)" = 10 ] || fail "outputs: $(ls whole)"
grep -q 'bad-length  *failed.*5 and 9\|bad-length  *failed.*9 and 13' whole.txt || fail "bad length not named: $(cat whole.txt)"
grep -q 'bad-size  *failed.*width' whole.txt || fail "bad size not named: $(cat whole.txt)"
grep -q 'line [0-9]*: width' whole.txt || fail "no line number: $(cat whole.txt)"
grep -q 'text encoder 1x, transformer 1x, VAE 1x' whole.txt || fail "weights were read more than once: $(cat whole.txt)"
[ "$(grep -c '"status":"done"' whole/results.jsonl)" = 10 ] || fail "results.jsonl"
[ "$(grep -c '"status":"failed"' whole/results.jsonl)" = 2 ] || fail "results.jsonl: failures"
[ -z "$(ls -A whole | grep -E 'lock$|tmp|checkpoint' | grep -v '^.batch.lock$')" ] || fail "left behind: $(ls -A whole)"

# Again: an error without --resume, nothing to do with it.
code=0
"${batch[@]}" --output-dir whole >again.txt 2>&1 || code=$?
[ "$code" = 1 ] && grep -q 'exists; --resume' again.txt || fail "existing outputs: $(cat again.txt)"
"${batch[@]}" --output-dir whole --resume >again.txt 2>&1 || true
grep -q '10 finished before, 2 failed' again.txt || fail "--resume does not skip: $(cat again.txt)"
# By content, not by name: a damaged output is made again, one of other settings is not touched.
cp whole/star.mp4 kept.mp4
printf x >>whole/star.mp4
"${batch[@]}" --output-dir whole --resume >again.txt 2>&1 || true
cmp kept.mp4 whole/star.mp4 || fail "a damaged output was taken for finished"
"${batch[@]}" --output-dir whole --resume --steps 5 >again.txt 2>&1 || true
grep -q 'not the result of this job' again.txt || fail "another job's output: $(cat again.txt)"
cmp kept.mp4 whole/star.mp4 || fail "another job's output was replaced"

# Killed twice at random, then finished.
for round in 1 2; do
  "${batch[@]}" --output-dir cut --resume >/dev/null 2>&1 &
  pid=$!
  sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
  kill -9 $pid 2>/dev/null || true
  wait $pid 2>/dev/null || true
done
code=0
"${batch[@]}" --output-dir cut --resume >cut.txt 2>&1 || code=$?
[ "$code" = 1 ] || fail "exit code $code after two kills: $(cat cut.txt)"
for f in whole/*.mp4; do cmp "$f" "cut/$(basename "$f")" || fail "$(basename "$f") differs after kills"; done
[ -z "$(ls -A cut | grep -E '\.lock$|tmp|checkpoint' | grep -v '^.batch.lock$')" ] || fail "left behind: $(ls -A cut)"

# Ctrl-C: stops after the step, says how to go on.
"${batch[@]}" --output-dir int >int.txt 2>int.err &
pid=$!
sleep 0.7
kill -INT $pid
code=0
wait $pid || code=$?
if [ "$code" != 1 ]; then # 1: it was quicker than us
  [ "$code" = 130 ] || fail "exit code $code after SIGINT: $(cat int.err)"
  grep -q -- '--resume goes on' int.err || fail "no word on how to go on: $(cat int.err)"
  [ -z "$(ls -A int | grep -E '\.mp4\.lock|tmp-')" ] || fail "left behind after SIGINT: $(ls -A int)"
fi
"${batch[@]}" --output-dir int --resume >/dev/null 2>&1 || true
for f in whole/*.mp4; do cmp "$f" "int/$(basename "$f")" || fail "$(basename "$f") differs after SIGINT"; done

# Two processes, one folder: each job once, both see all of it done.
"${batch[@]}" --output-dir two >two1.txt 2>&1 &
first=$!
code=0
"${batch[@]}" --output-dir two >two2.txt 2>&1 || code=$?
code1=0
wait $first || code1=$?
[ "$code$code1" = 11 ] || fail "exit codes of two processes: $code1 $code: $(cat two1.txt two2.txt)"
[ "$(grep -c '"status":"done"' two/results.jsonl)" = 10 ] || fail "a job was done twice: $(cat two/results.jsonl)"
for f in whole/*.mp4; do cmp "$f" "two/$(basename "$f")" || fail "$(basename "$f") differs with two processes"; done

# Shards, by flag and by Slurm's variables, are disjoint and complete.
"${batch[@]}" --output-dir shards --shard 1/2 >/dev/null 2>&1 || true
[ "$(ls shards/*.mp4 | wc -l)" -lt 10 ] || fail "a shard did everything"
SLURM_ARRAY_TASK_ID=11 SLURM_ARRAY_TASK_MIN=10 SLURM_ARRAY_TASK_COUNT=2 "${batch[@]}" --output-dir shards >shard.txt 2>&1 || true
[ "$(ls shards/*.mp4 | wc -l)" = 10 ] || fail "two shards do not make the whole: $(ls shards)"
[ "$(grep -c '"status":"done"' shards/results.jsonl)" = 10 ] || fail "shards overlap"

# Prompt files and tables; a dry run writes nothing.
printf '# toys\na red ball over grass\n\n"quoted", with a comma\n' >prompts.txt
printf 'prompt,seed,name\n"a ball, red",1,ball\na star,2,\n' >table.csv
printf 'defaults: {model: %s, steps: 2, frames: 5}\njobs:\n  - prompts: prompts.txt\n    matrix: {seed: [1, 2]}\n  - csv: table.csv\n    output: "{preset}{seed}/{name}.mkv"\n' "$model" >more.yaml
"$kinora" batch more.yaml --dry-run >dry.txt
grep -q '6 jobs to do' dry.txt || fail "dry run: $(cat dry.txt)"
[ ! -e more ] || fail "a dry run made a folder"
"$kinora" batch more.yaml --progress none >more.txt 2>&1 || fail "more.yaml: $(cat more.txt)"
[ -e more/1/ball.mkv ] && [ -e more/2/a-star.mkv ] && [ -e more/quoted-with-a-comma-seed2.mp4 ] || fail "names: $(find more)"
"$kinora" batch more.yaml --dry-run --resume | grep -q '0 jobs to do' || fail "dry run after the work"
printf 'prompt,seed\na ball,1\n' >bare.csv
"$kinora" batch bare.csv -m "$model" --steps 2 --frames 5 --progress none >/dev/null 2>&1 || fail "a bare table"
"$kinora" batch prompts.txt -m "$model" --dry-run >dry.txt && grep -q '2 jobs to do' dry.txt || fail "a bare list of prompts: $(cat dry.txt)"

# A name is no way out of the folder that the command line names with it; a look inside is each job's own.
printf 'name,prompt\n..,a ball\na,a star\nb,a ball\n' >dots.csv
dots=("$kinora" batch dots.csv -m "$model" --output-dir deep/in --steps 2 --frames 5 --progress none)
for place in --frames-dir=f/{name} --frames-dir="$work/f/{name}/x" '--latents-out={name}/{name}' --debug-dir=look '--debug-dir=l/{name}'; do
  "${dots[@]}" "${place%%=*}" "${place#*=}" --overwrite >dots.txt 2>&1 && fail "$place: a name led out of it: $(find deep)"
  grep -q "^ *1  *\.\.  *failed.*no place, found '\.\.'" dots.txt && grep -q '2 done' dots.txt || fail "$place: $(cat dots.txt)"
done
[ "$(ls deep)" = in ] && [ "$(ls deep/in/f)" = "$(ls deep/in/look)" ] && [ -s deep/in/l/b/run.json ] || fail "names of dots: $(find deep)"

# Latents alone, where a job has no output: found again by content, also when the process was killed before it
# could write its line; those of other settings are not touched.
printf 'name,prompt,latents-out,seed\na,a ball,{name}.safetensors,-1\n' >latents.csv
only=("$kinora" batch latents.csv -m "$model" --steps 2 --frames 5 --progress none)
"${only[@]}" >only.txt 2>&1 || fail "latents alone: $(cat only.txt)"
[ -s latents/a.safetensors ] && [ ! -e latents/a.mp4 ] || fail "latents alone: $(ls latents)"
has '1 finished before' "${only[@]}" --resume || fail "latents: --resume does not skip"
rm latents/results.jsonl
"${only[@]}" --resume --steps 3 >again.txt 2>&1 && fail "another job's latents were accepted"
grep -q 'not the result of this job' again.txt || fail "another job's latents: $(cat again.txt)"
rm latents/results.jsonl
has '1 done' "${only[@]}" --resume || fail "latents without their line are not made again"

# A job that reads what another one wrote is finished only as long as that is the same.
cat >chain.yaml <<YAML
defaults: {model: $model, steps: 2, frames: 5, seed: 1}
jobs:
  - {prompt: a ball, name: base, latents-out: base.safetensors}
  - {prompt: a ball, name: shown, latents-in: chain/base.safetensors}
YAML
chain=("$kinora" batch chain.yaml --progress none)
has '2 done' "${chain[@]}" || fail "a chain: $(cat has.txt)"
has '2 finished before' "${chain[@]}" --resume || fail "a chain, again: $(cat has.txt)"
rm chain/base.safetensors
has '1 done, 1 finished before' "${chain[@]}" --resume || fail "a chain without its first link: $(cat has.txt)"
"$kinora" render "${quick[@]}" --frames 5 --latents-out chain/base.safetensors -y
"${chain[@]}" --resume >again.txt 2>&1 && fail "a chain with a changed link: $(cat again.txt)"
[ "$(grep -c 'not the result of this job' again.txt)" -ge 2 ] || fail "a chain with a changed link: $(cat again.txt)"

# Mistakes in the file are usage errors, with the line.
printf 'defaults:\n  stepz: 3\njobs:\n  - prompt: x\n' >bad.yaml
expect_error 2 "did you mean 'steps'" "$kinora" batch bad.yaml
expect_error 2 "bad.yaml:2" "$kinora" batch bad.yaml
printf 'jobs: []\n' >bad.yaml
expect_error 2 "a list of jobs" "$kinora" batch bad.yaml
printf 'jobs:\n  - {prompt: x, output: a.mp4}\n  - {prompt: y, output: a.mp4}\n' >bad.yaml
expect_error 2 "both write" "$kinora" batch bad.yaml
printf 'defaults: {contact-sheet: all.png}\njobs:\n  - {prompt: x, name: a}\n  - {prompt: y, name: b}\n' >bad.yaml
expect_error 2 "both write bad/all.png" "$kinora" batch bad.yaml
printf 'prompt,seed\na,1,2\n' >bad.csv
expect_error 2 "expected 2 fields" "$kinora" batch bad.csv
expect_error 2 "I/N" "$kinora" batch more.yaml --shard 3/2
expect_error 2 "missing.yaml" "$kinora" batch missing.yaml
