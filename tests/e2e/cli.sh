#!/usr/bin/env bash
# Everything that is not a render: help, man page, presets, info, plan, config files, progress as JSON.
source "$(dirname "$0")/lib.sh" "$@"

has '^kinora [0-9]+\.[0-9]+\.[0-9]+$' "$kinora" --version || fail "version"
"$kinora" help >help.txt
grep -q -- '--width' help.txt || fail "help"
"$kinora" --help | cmp - help.txt || fail "--help"
for command in render refine batch plan compare info bench search-windows presets; do
  "$kinora" $command --help >command.txt || fail "$command --help"
  "$kinora" help $command | cmp - command.txt || fail "help $command is not $command --help"
  head -1 command.txt | grep -q "^usage: kinora $command " || fail "$command --help: $(head -3 command.txt)"
  case $command in
    compare | info | presets) want= ;;
    batch) want='--shard --width' ;;
    search-windows) want='--candidates --width' ;;
    *) want='--width' ;;
  esac
  got=$({ grep -oE -- '--(shard|candidates|width) ' command.txt || true; } | sort -u | tr -d '\n')
  [ "$got" = "${want:+$(printf '%s\n' $want | sort | sed 's/$/ /' | tr -d '\n')}" ] || fail "$command --help lists '$got', expected '$want'"
done
for option in strength --strength; do
  has '^ +--strength X,\.\.\. +Share of the steps' "$kinora" help $option || fail "help $option: $(cat has.txt)"
  [ "$(grep -c -- ' --' has.txt)" = 1 ] || fail "help $option: $(cat has.txt)"
done
has '^  -o, --output PATH ' "$kinora" help -o || fail "help -o: $(cat has.txt)"
expect_error 2 "unknown command 'o-o'" "$kinora" help o-o
expect_error 2 "unknown command 'rend'; did you mean 'render'?" "$kinora" help rend
"$kinora" help --man >kinora.1
if command -v man >/dev/null; then
  man --warnings -l kinora.1 2>warnings.txt >/dev/null
  [ ! -s warnings.txt ] || fail "man page: $(cat warnings.txt)"
fi
"$kinora" help --markdown | cmp - "$tree/docs/options.md" || fail "docs/options.md is stale"
expect_error 2 "usage" "$kinora"

for preset in "$tree"/presets/*.yaml; do
  name=$(basename "$preset" .yaml)
  has "^$name " "$kinora" presets || fail "preset $name is not listed"
  "$kinora" presets show "$name" >/dev/null
done

has 'cpu' "$kinora" info || fail "info: devices"
has 'h264' "$kinora" info --codecs || fail "info: codecs"
has 'transformer' "$kinora" info "$model" || fail "info: model"

expect_error 2 "given twice" "$kinora" plan --preset 2x --preset draft "${quick[@]}"
expect_error 2 "did you mean '--guidance'" "$kinora" plan --cfg 3 "${quick[@]}"
expect_error 2 "--contact-sheet" "$kinora" render "${quick[@]}" -o x.png
"$kinora" plan "${quick[@]}" --progress lines 2>plan.txt || fail "a plan without an output"
grep -qE '^work +[0-9.]+ TFLOP' plan.txt || fail "work: $(cat plan.txt)"

# Layers: the model's width, a preset over it, a file over that, a flag over all.
printf 'steps: 3\nfps: 10\n' >a.yaml
"$kinora" plan "${quick[@]}" --progress lines --config a.yaml --fps 12 -o x.mp4 2>plan.txt
grep -q '160x96' plan.txt || fail "model default: $(cat plan.txt)"
grep -q '12 fps' plan.txt || fail "flag over config: $(cat plan.txt)"
grep -qE 'denoise +[0-9.]+ GiB' plan.txt || fail "memory: $(cat plan.txt)"
[ ! -e x.mp4 ] || fail "plan wrote something"
expect_error 4 "the budget is" "$kinora" plan "${quick[@]}" --memory 0.001 -o x.mp4

"$kinora" render "${quick[@]}" --progress json -o y.mp4 >events.txt
grep -q '"event":"begin","stage":"denoise"' events.txt || fail "events: $(head -3 events.txt)"
grep -q '"event":"done","output":"y.mp4"' events.txt || fail "no done event"
has 'a red ball' "$kinora" info y.mp4 || fail "info of a video"

# The phases apart, through files, give the same frames.
"$kinora" render "${quick[@]}" --embeds-out e.safetensors --latents-out l.safetensors
has 'latents F32\[16, 3, 12, 20\]' "$kinora" info l.safetensors || fail "latents: $("$kinora" info l.safetensors)"
"$kinora" render "${quick[@]}" --embeds-in e.safetensors --latents-out l2.safetensors
"$kinora" render "${quick[@]}" --latents-in l2.safetensors --frames-dir f2
"$kinora" render "${quick[@]}" --frames-dir f1
has 'all frames are equal' "$kinora" compare f1 f2 || fail "the phases apart: $(cat has.txt)"

# Frames are not replaced unasked, and those of a longer clip that stay are told of.
expect_error 2 "--frames-dir f1: holds frames" "$kinora" render "${quick[@]}" --frames-dir f1
"$kinora" render "${quick[@]}" --frames-dir f1 -y 2>again.txt
! grep -q 'earlier' again.txt || fail "as many frames as before: $(cat again.txt)"
"$kinora" render "${quick[@]}" --frames-dir f1 -y --frames 5 2>again.txt
grep -q 'f1 holds frames of an earlier, longer clip, from number 5 on' again.txt || fail "frames left behind: $(cat again.txt)"
