#!/usr/bin/env bash
# The layer rule of docs/architecture.md: a folder includes only itself and folders above it.
# Also: no printing or ending of the process from library code.
set -u
cd "$(dirname "$0")/.."
bad=0

allowed() {
  case $1 in
    io) echo "io" ;;
    compute) echo "io|compute" ;;
    attention) echo "io|compute|attention" ;;
    text | vae | dit) echo "io|compute|attention|$1" ;;
    pipeline) echo "io|compute|attention|text|vae|dit|pipeline" ;;
  esac
}

for layer in io compute attention text vae dit pipeline; do
  found=$(grep -nE '^ *# *include "' "$layer"/*.[ch] "$layer"/*.cu "$layer"/*.cuh 2>/dev/null |
    grep -vE "include \"($(allowed $layer))/")
  if [ -n "$found" ]; then
    echo "$layer/ may include only: $(allowed $layer)"
    echo "$found"
    bad=1
  fi
done

calls='(^|[^_a-zA-Z])(printf|puts|putchar|exit|_exit|abort|getenv|system|popen) *\('
for layer in io compute attention text vae dit; do
  found=$(grep -nE "$calls" "$layer"/*.[ch] "$layer"/*.cu 2>/dev/null | grep -vE '^[^:]*:[0-9]+: *(/?\*|//)')
  if [ -n "$found" ]; then
    echo "$layer/ is library code and must not call:"
    echo "$found"
    bad=1
  fi
done
exit $bad
