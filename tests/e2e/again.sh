#!/usr/bin/env bash
# How a file was made, making it again, presets of one's own, comparing two clips, completion.
source "$(dirname "$0")/lib.sh" "$@"
export XDG_CONFIG_HOME=$work/config

# render -> info -> render --from: the same bytes, from the video, a frame, the sheet and the sidecar.
"$kinora" render "${quick[@]}" --guidance 3.3 --frames-dir f --contact-sheet sheet.png -o a.mp4
has 'job [0-9a-f]{16}' "$kinora" info a.mp4 || fail "info: $(cat has.txt)"
for said in '--seed 3' '--guidance 3.3' '--steps 4' '--prompt "a red ball bouncing over grass"' 'render --from a.mp4'; do
  "$kinora" info a.mp4 | grep -qF -- "$said" || fail "info does not say $said: $("$kinora" info a.mp4)"
done
for source in a.mp4 a.mp4.json f/frame_00004.png sheet.png; do
  "$kinora" info $source | grep -qF -- '--guidance 3.3' || fail "info $source"
  "$kinora" render --from $source --model "$model" -o b.mp4 -y --progress none
  cmp a.mp4 b.mp4 || fail "--from $source: other bytes"
done
"$kinora" render --from a.mp4 --model "$model" -o c.mp4 --seed 4 --progress none
! cmp -s a.mp4 c.mp4 || fail "--seed did not win over --from"
expect_error 3 "found no settings" "$kinora" render --from "$tree/docs/gallery/ball.png" --model "$model" -o d.mp4
expect_error 3 "missing.mp4" "$kinora" render --from missing.mp4 --model "$model" -o d.mp4

# Comparing.
"$kinora" compare a.mp4 b.mp4 | grep -q 'infinite' || fail "equal clips"
"$kinora" compare a.mp4 c.mp4 --csv c.csv -o c.png >cmp.txt || fail "compare"
grep -q '9 frames of 160x96' cmp.txt && grep -qE 'SSIM  mean 0\.' cmp.txt || fail "compare: $(cat cmp.txt)"
[ "$(wc -l <c.csv)" = 10 ] || fail "compare --csv"
[ "$(head -c 4 c.png | tail -c 3)" = PNG ] || fail "compare -o x.png"
"$kinora" compare a.mp4 c.mp4 -o side.mp4 >/dev/null
has '480x96' "$kinora" info side.mp4 || fail "side by side"
"$kinora" compare a.mp4 f >cmp.txt || fail "video against frames"
expect_error 2 "exists" "$kinora" compare a.mp4 c.mp4 -o side.mp4
"$kinora" render "${quick[@]}" --size 128x96 -o small.mp4
expect_error 2 "expected the same size" "$kinora" compare a.mp4 small.mp4
expect_error 2 "expected" "$kinora" compare a.mp4

# Tensors: the same, others, of other shapes.
"$kinora" render "${quick[@]}" --latents-out l1.safetensors
"$kinora" render "${quick[@]}" --guidance 2 --latents-out l2.safetensors
"$kinora" render "${quick[@]}" --frames 5 --latents-out l3.safetensors
"$kinora" compare l1.safetensors l1.safetensors | grep -qE '^latents \[16, 3, 12, 20\]: equal$' || fail "compare equal tensors"
"$kinora" compare l1.safetensors l2.safetensors >cmp.txt
python3 - "$(sed -E 's/.*relative L2 ([^,]*), largest difference ([^ ]*) at \[(.*)\]$/\1 \2 \3/' cmp.txt)" <<'PY' || fail "compare tensors: $(cat cmp.txt)"
import array, json, struct, sys
def read(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    begin, end = json.loads(data[8:8 + n])["latents"]["data_offsets"]
    return array.array("f", data[8 + n + begin:8 + n + end])
a, b = read("l1.safetensors"), read("l2.safetensors")
l2, most, *at = sys.argv[1].replace(",", "").split()
want = (sum((x - y) ** 2 for x, y in zip(a, b)) / sum(x * x for x in a)) ** 0.5
c, t, y, x = map(int, at)
i = ((c * 3 + t) * 12 + y) * 20 + x
assert abs(float(l2) / want - 1) < 1e-3, (l2, want)
assert abs(float(most) / abs(a[i] - b[i]) - 1) < 1e-3 and abs(a[i] - b[i]) == max(abs(p - q) for p, q in zip(a, b)), most
PY
"$kinora" compare l1.safetensors l3.safetensors | grep -qF 'latents: [16, 3, 12, 20] and [16, 2, 12, 20]' || fail "compare tensors of other shapes"
expect_error 2 "--csv c.csv: exists" "$kinora" compare a.mp4 c.mp4 --csv c.csv
# Where results cannot go is found before clips are read: here a frame that cannot be.
cp -r f broken && echo x >broken/frame_00004.png
expect_error 3 "frame_00004.png" "$kinora" compare a.mp4 broken
expect_error 3 "the folder none/ does not exist" "$kinora" compare a.mp4 broken --csv none/c.csv
for output in c.png c.mp4; do
  expect_error 3 "none" "$kinora" compare a.mp4 broken -o none/$output
  ! grep -q frame_00004 stderr.txt || fail "compare -o none/$output: $(cat stderr.txt)"
done
expect_error 2 "of clips" "$kinora" compare l1.safetensors l2.safetensors --csv x.csv

# Presets of one's own: saved, shown, extended, in place of a shipped one.
"$kinora" render --preset draft --guidance 2 --fps 9 --prompt x --save-preset mine 2>/dev/null
[ -e config/kinora/presets/mine.yaml ] || fail "--save-preset"
"$kinora" presets show mine | grep -qE '^guidance: 2 .*your preset mine' || fail "show: $("$kinora" presets show mine)"
"$kinora" presets show mine | grep -qE '^steps: 12 .*preset draft' || fail "origin of what is extended"
"$kinora" presets show mine | grep -qE '^shift: 3 .*default' || fail "origin of a default"
"$kinora" presets | grep -qE '^mine .*yours' || fail "list"
"$kinora" presets --names | grep -qx mine || fail "names"
printf 'about: quicker\nextends: draft\nsteps: 3\n' >config/kinora/presets/draft.yaml
"$kinora" presets show draft | grep -qE '^steps: 3 .*your preset draft' || fail "override of a shipped preset"
"$kinora" presets show draft | grep -qE '^crf: 23 .*# preset draft' || fail "shipped preset beneath"
"$kinora" render --model "$model" --preset draft --prompt x --frames 5 -o preset.mp4 --progress none
"$kinora" info preset.mp4 | grep -q -- '--steps 3' || fail "a preset of one's own in a render"
expect_error 2 "exists" "$kinora" render --guidance 2 --save-preset mine
printf 'steps: 3\nguidence: 2\n' >config/kinora/presets/wrong.yaml
expect_error 2 "wrong.yaml line 2" "$kinora" presets show wrong
expect_error 2 "did you mean 'guidance'" "$kinora" presets show wrong
printf 'extends: b\n' >config/kinora/presets/a.yaml
printf 'extends: a\n' >config/kinora/presets/b.yaml
rm config/kinora/presets/wrong.yaml
expect_error 2 "circle" "$kinora" presets show a

# Completion is valid in its shell and knows options, values and presets.
for shell in bash zsh fish; do "$kinora" help --completion $shell >completion.$shell; done
bash -n completion.bash || fail "bash completion"
rm config/kinora/presets/[ab].yaml
complete_bash() {
  PATH="$(dirname "$kinora"):$PATH" bash -c 'source completion.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kinora; echo "${COMPREPLY[*]}"' _ "$@"
}
[ "$(complete_bash kinora render --guid)" = --guidance ] || fail "completes options: $(complete_bash kinora render --guid)"
complete_bash kinora render --solver '' | grep -q unipc || fail "completes values"
complete_bash kinora render --preset mi | grep -qw mine || fail "completes presets"
complete_bash kinora ba | grep -qw batch || fail "completes commands"
complete_bash kinora refi | grep -qw refine || fail "completes commands"

# zsh: a shell on a pseudo-terminal, in which the line is typed and Tab pressed.
mkdir functions && cp completion.zsh functions/_kinora
cat >tab.zsh <<'ZSH'
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT=; fpath=($PWD/functions \$fpath); autoload -Uz compinit; compinit -u -D; stty columns 200 rows 200; echo READY\"\"NOW"
zpty -r -m shell line '*READYNOW*'
zpty -n -w shell "$1"$'\t'
for i in {1..100}; do
  sleep 0.1
  while zpty -r -t shell line; do seen+=$line; done
  [[ $seen == *$2* ]] && { zpty -d shell; exit 0 }
done
print -r -- "$seen"
exit 1
ZSH
complete_zsh() { PATH="$(dirname "$kinora"):$PATH" zsh -f tab.zsh "$1" "$2" >zsh.txt 2>&1 || fail "zsh: '$1' gives no '$2': $(cat -v zsh.txt)"; }
complete_fish() {
  PATH="$(dirname "$kinora"):$PATH" fish --no-config -c "source completion.fish; complete -C '$1'" >fish.txt 2>&1
  grep -q -- "^$2" fish.txt || fail "fish: '$1' gives no '$2': $(cat fish.txt)"
}
for shell in zsh fish; do
  if ! command -v $shell >/dev/null; then echo "no $shell here: its completion is not tried"; continue; fi
  complete_$shell 'kinora refi' refine
  complete_$shell 'kinora render --guid' --guidance
  complete_$shell 'kinora render --solver u' unipc
  complete_$shell 'kinora render --preset mi' mine
  complete_$shell 'kinora render --no-side' --no-sidecar
done

# A live preview: a whole PNG at any time, and the result is the same with it.
"$kinora" render "${quick[@]}" --guidance 3.3 --preview now.png -o p.mp4 --refine-size 2x
"$kinora" render "${quick[@]}" --guidance 3.3 -o q.mp4 --refine-size 2x
cmp p.mp4 q.mp4 || fail "--preview changed the result"
[ "$(head -c 4 now.png | tail -c 3)" = PNG ] || fail "--preview"
"$kinora" render "${quick[@]}" --guidance 3.3 --preview now.png -o p.mp4 -y
mkdir one && cp now.png one/frame_00000.png
"$kinora" compare one f >cmp.txt || fail "preview of another size: $(cat cmp.txt)"
expect_error 3 "--preview" "$kinora" render "${quick[@]}" --preview nowhere/x.png -o r.mp4
