#!/usr/bin/env bash
# The commands in README.md and docs/*.md run as they are printed, page by page, each page in an empty folder
# with demo/, build/ and a clip.mp4 in it. Renders get `--steps 4`: what is tested is the commands, not the pictures. A
# block behind a line `<!-- not run: WHY -->` is left out and counted.
source "$(dirname "$0")/lib.sh" "$@"

mkdir bin
cat >bin/kinora <<WRAP
#!/bin/sh
case \$1 in
  render | refine | plan | batch | search-windows) [ "\$2" = --help ] || set -- "\$@" --steps 4 ;;
esac
exec "$kinora" "\$@"
WRAP
chmod +x bin/kinora
export PATH=$work/bin:$PATH XDG_CONFIG_HOME=$work/config

# Blocks of a page to N.sh; YAML, CSV and text blocks whose first line is "# NAME" to NAME.
split_page() {
  awk '
    /^<!-- not run:/ { skip = 1; next }
    /^```/ {
      if (kind == "") {
        kind = substr($0, 4); text = ""; lines = 0; name = ""; next
      }
      if (kind == "sh" && skip) print "skip"
      else if (kind == "sh" && text ~ /(^|\n)(build\/)?kinora /) {
        file = sprintf("block%02d.sh", ++blocks); printf "%s", text >file; close(file); print file
      } else if (name != "") { printf "%s", text >name; close(name) }
      kind = ""; skip = 0; next
    }
    kind != "" {
      if (++lines == 1 && kind != "sh" && $0 ~ /^# [a-z0-9-]+\.(yaml|csv|txt)$/) { name = $2; next }
      text = text $0 "\n"
    }
    kind == "" && NF { skip = 0 }
  ' "$1"
}

# The reader's own video, where a page has one.
ffmpeg -v error -f lavfi -i testsrc2=size=160x96:rate=8 -frames:v 9 -pix_fmt yuv420p "$work/clip.mp4"

ran=0 skipped=0
for page in "$tree"/README.md "$tree"/docs/*.md; do
  folder=$work/page-$(basename "$page" .md)
  mkdir "$folder"
  cd "$folder"
  ln -s "$tree/demo" demo
  cp "$work/clip.mp4" clip.mp4
  mkdir build
  ln -s ../../bin/kinora build/kinora
  for block in $(split_page "$page"); do
    if [ "$block" = skip ]; then skipped=$((skipped + 1)); continue; fi
    bash -eu "$block" >out.txt 2>&1 || fail "$(basename "$page"), $block: $(cat "$block"; tail -5 out.txt)"
    ran=$((ran + 1))
  done
done
echo "$ran blocks run, $skipped left out"
[ "$ran" -ge 8 ] || fail "only $ran blocks found"
