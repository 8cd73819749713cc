#!/usr/bin/env bash
# An installed tree: the program, its man page and completions, and a C program built against the shared and
# the static library by pkg-config, with two renderers in one process.
source "$(dirname "$0")/lib.sh" "$@"
build=$(cd "$(dirname "$kinora")" && pwd)

for l in libkinora.so libkinora.a share/kinora.1; do
  [ -e "$build/$l" ] || { echo "skipped: $build/$l is not built" >&2; exit 77; }
done
if grep -q '^KN_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then echo "skipped: a sanitizer build" >&2; exit 77; fi
cmake --install "$build" --prefix "$work/first" >/dev/null
mv first usr # an installed tree may be moved
usr=$work/usr
"$usr/bin/kinora" --version >/dev/null || fail "installed program"
"$usr/bin/kinora" help --man | cmp - "$usr/share/man/man1/kinora.1" || fail "man page"
"$usr/bin/kinora" help --completion bash | cmp - "$usr/share/bash-completion/completions/kinora" || fail "completion"
model=$usr/share/kinora/demo/model
[ -e "$model/model_index.json" ] || fail "demo model"

export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$usr" -name kinora.pc)")
lib=$(pkg-config --variable=libdir kinora)
# Nothing but the header's functions is to be seen.
seen=$(nm -D --defined-only "$lib/libkinora.so" | awk '$2 == "T" {print $3}' | sort)
want=$(grep -oE 'kinora_[a-z_]+\(' "$usr/include/kinora.h" | tr -d '(' | sort -u)
[ "$(echo "$seen" | grep -vx "$want" | wc -l)" = 0 ] || fail "exported: $seen"
for f in kinora_set kinora_get kinora_render kinora_error kinora_version; do echo "$seen" | grep -qx $f || fail "$f is not exported"; done

cc=${CC:-cc}
"$cc" -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror "$tree/examples/embed.c" $(pkg-config --cflags --libs kinora) -pthread -o shared
LD_LIBRARY_PATH=$lib ./shared "$model" >shared.txt || fail "embed, shared: $(cat shared.txt)"
grep -q 'cancelled: code 130, stopped at denoise 2' shared.txt || fail "cancel: $(cat shared.txt)"
[ "$(grep -cE 'ball|star' shared.txt)" = 2 ] || fail "two renderers: $(cat shared.txt)"
mkdir only && cp "$lib/libkinora.a" only/
"$cc" -std=c11 -D_POSIX_C_SOURCE=200809L "$tree/examples/embed.c" $(pkg-config --cflags kinora) only/libkinora.a \
  $(pkg-config --static --libs kinora | sed 's/-lkinora//') -pthread -o static
./static "$model" | cmp - shared.txt || fail "embed, static: another result than shared"

# The callback's frames are those of the program.
"$kinora" render --model "$model" --prompt "a red ball bouncing over grass" --seed 3 --steps 4 --frames 9 --frames-dir f --frames-depth 16 --progress none
if command -v ffmpeg >/dev/null; then
  mean=$(ffmpeg -v error -i f/frame_00000.png -vf scale=1:1:flags=area -f rawvideo -pix_fmt rgb48le - | od -An -tu2 | awk '{printf "%.2f", ($1 + $2 + $3) / 3 / 65535}')
  got=$(grep ball shared.txt | sed 's/.*: \([0-9.]*\) .*/\1/' | awk '{printf "%.2f", $1}')
  [ "$mean" = "$got" ] || fail "frame brightness by callback $got, by file $mean"
fi
