#!/usr/bin/env bash
# Bad input: one clear message, the documented exit code, nothing left behind.
source "$(dirname "$0")/lib.sh" "$@"
render=("$kinora" render "${quick[@]}")

expect_error 2 "did you mean '--guidance'" "${render[@]}" -o x.mp4 --guidence 3
expect_error 2 "did you mean 'render'" "$kinora" rendr
expect_error 2 "5 and 9" "${render[@]}" -o x.mp4 --frames 7
expect_error 2 "from 16 to 16384" "${render[@]}" -o x.mp4 --width 8
expect_error 2 "WIDTHxHEIGHT" "${render[@]}" -o x.mp4 --size 100
expect_error 2 "unipc|euler|dpm++" "${render[@]}" -o x.mp4 --solver heun
expect_error 2 "--output" "${render[@]}"
expect_error 2 "expected a value" "${render[@]}" -o
expect_error 2 "h264" "${render[@]}" -o x.mp4 --codec h2645
expect_error 2 "unexpected argument" "${render[@]}" -o x.mp4 stray
expect_error 3 "no such model folder" "$kinora" render -m nowhere -p x -o x.mp4
mkdir empty
expect_error 3 "model_index.json" "$kinora" render -m empty -p x -o x.mp4
expect_error 3 "nowhere/x.mp4" "${render[@]}" -o nowhere/x.mp4
touch there.mp4
expect_error 2 "--overwrite" "${render[@]}" -o there.mp4
expect_error 3 "nowhere/deep' is missing" "${render[@]}" --frames-dir nowhere/deep/frames
expect_error 2 "a folder's name" "${render[@]}" --latents-out there/
expect_error 2 "--contact-sheet x.jpg: expected a name that ends in .png" "${render[@]}" -o x.mp4 --contact-sheet x.jpg
expect_error 2 "in .png or .webp" "${render[@]}" -o x.mp4 --preview x.mp4
expect_error 2 "--preview ./x.png: expected a name of its own, found that of --contact-sheet" \
  "${render[@]}" -o x.mp4 --preview ./x.png --contact-sheet x.png
expect_error 2 "--frames-dir x.mp4/: expected a name of its own, found that of --output" "${render[@]}" -o "$PWD/x.mp4" --frames-dir x.mp4/
expect_error 3 "missing.yaml" "${render[@]}" -o x.mp4 --config missing.yaml
printf 'steps: 3\nwidht: 160\n' >bad.yaml
expect_error 2 "line 2" "${render[@]}" -o x.mp4 --config bad.yaml
expect_error 2 "width" "${render[@]}" -o x.mp4 --config bad.yaml
printf 'steps: [3\n' >broken.yaml
expect_error 3 "broken.yaml" "${render[@]}" -o x.mp4 --config broken.yaml
expect_error 2 "unknown preset" "${render[@]}" -o x.mp4 --preset wan-480
printf 'bad \xff utf-8' >prompt.txt
expect_error 2 "UTF-8" "$kinora" render -m "$model" --prompt-file prompt.txt -o x.mp4

# A broken model names the file and the tensor.
own_model broken
truncate -s 100000 broken/transformer/diffusion_pytorch_model.safetensors
expect_error 3 "diffusion_pytorch_model.safetensors" "$kinora" render -m broken -p x --seed 1 -o x.mp4
cp "$model/vae/diffusion_pytorch_model.safetensors" broken/transformer/
expect_error 3 "transformer" "$kinora" render -m broken -p x --seed 1 -o x.mp4
rm -r broken/tokenizer
expect_error 3 "tokenizer" "$kinora" render -m broken -p x --seed 1 -o x.mp4
sed -i 's/"num_layers": [0-9]*/"num_layers": -3/' broken/transformer/config.json
mkdir broken/tokenizer && cp "$model"/tokenizer/* broken/tokenizer/
expect_error 3 "num_layers" "$kinora" render -m broken -p x --seed 1 -o x.mp4

# NaN in the latents: stops, and says at which step. 0xFFFFFFFF is a NaN.
header='{"noise":{"dtype":"F32","shape":[16,3,12,20],"data_offsets":[0,46080]}}     '
{ printf "\\x$(printf %02x ${#header})\\0\\0\\0\\0\\0\\0\\0"; printf %s "$header"; head -c 46080 /dev/zero | tr "\\0" "\\377"; } >noise.safetensors
expect_error 6 "denoise step 1 of 4" "${render[@]}" -o x.mp4 --noise-in noise.safetensors
expect_error 3 "noise.safetensors: tensor noise: expected" "${render[@]}" -o x.mp4 --frames 5 --noise-in noise.safetensors
# What a later stage will want is looked for before the first one runs (which would end with NaN).
expect_error 3 "tensor noise.1 is missing" "${render[@]}" -o x.mp4 --refine-size 2x --noise-in noise.safetensors
expect_error 3 "tensor latents is missing" "${render[@]}" -o x.mp4 --latents-in noise.safetensors

# A full disk (here: a limit on file size) is an error of the write, and nothing half-written stays.
limited() { (ulimit -f 8 && exec "$@"); }
expect_error 3 "x.mp4" limited "${render[@]}" -o x.mp4

leftover=$(ls -A | grep -vE '^(noise.safetensors|empty|there.mp4|bad.yaml|broken.yaml|prompt.txt|broken|stdout.txt|stderr.txt)$' || true)
[ -z "$leftover" ] || fail "left behind: $leftover"
[ ! -s there.mp4 ] || fail "an existing file was written"
