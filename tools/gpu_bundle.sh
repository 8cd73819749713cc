#!/usr/bin/env bash
# Collects programs with the shared libraries that a bare machine lacks, for running them on a machine
# with a GPU and without this project's dependencies.
#
# usage: tools/gpu_bundle.sh FOLDER PROGRAM...
#   FOLDER gets the programs, lib/ and env.sh; there:  . FOLDER/env.sh; FOLDER/PROGRAM ...
# env.sh unpacks what was packed and adds the CUDA libraries of a Python installation, if there are any.
set -eu
[ $# -ge 2 ] || { sed -n '5,7s/^# \{0,1\}//p' "$0"; exit 2; }
folder=$1
shift
mkdir -p "$folder/lib"
# Of the system itself; others' versions of these would break programs there.
system='^(linux-vdso|ld-linux-.*|libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s|libresolv|libutil)\.so'
for program in "$@"; do
  cp "$program" "$folder/"
  strip "$folder/$(basename "$program")"
  xz -f -4 "$folder/$(basename "$program")"
  ldd "$program" | awk '$3 ~ /^\// { print $1, $3 }' | while read -r name path; do
    echo "$name" | grep -qE "$system" && continue
    [ -e "$folder/lib/$name" ] || [ -e "$folder/lib/$name.xz" ] && continue
    cp -L "$path" "$folder/lib/$name"
    if [ "$(stat -c %s "$folder/lib/$name")" -gt 4000000 ]; then xz -4 "$folder/lib/$name"; fi
  done
done
cat >"$folder/env.sh" <<'END'
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for f in "$here"/*.xz "$here"/lib/*.xz; do
  [ -e "$f" ] || continue
  python3 - "$f" <<'PY'
import lzma, shutil, sys
with lzma.open(sys.argv[1]) as src, open(sys.argv[1][:-3], "wb") as dst:
    shutil.copyfileobj(src, dst)
PY
done
site=$(python3 -c 'import site; print(site.getsitepackages()[0])')
export LD_LIBRARY_PATH=$here/lib:$site/nvidia/cudnn/lib:$site/nvidia/cu13/lib:$site/nvidia/cublas/lib
chmod +x "$here"/* 2>/dev/null || true
END
du -sh "$folder"
