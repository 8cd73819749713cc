#!/usr/bin/env bash
# tools/check_hardening.sh PROGRAM - is it built as the release is to be? Reads its ELF headers with readelf.
set -euo pipefail
program=$1
bad=0
check() { # WHAT COMMAND...
  local what=$1
  shift
  if "$@"; then echo "yes  $what"; else
    echo "NO   $what"
    bad=1
  fi
}
headers=$(readelf -W -h -l -d "$program")
symbols=$(readelf -W --dyn-syms "$program")
has() { grep -qE -- "$2" <<<"$1"; }
stack_ok() { has "$headers" 'GNU_STACK +0x[0-9a-f]+ 0x[0-9a-f]+ 0x[0-9a-f]+ 0x[0-9a-f]+ 0x[0-9a-f]+ RW +'; }
no_writable_code() { ! has "$headers" 'LOAD.* RWE '; }
no_text_relocations() { ! has "$headers" '\(TEXTREL\)'; }
no_search_path() { ! has "$headers" '\((RPATH|RUNPATH)\)' || [ "${KN_ALLOW_RPATH:-0}" = 1 ]; }
check 'position independent (PIE)' has "$headers" 'Type: +DYN'
check 'read-only after relocation (RELRO)' has "$headers" 'GNU_RELRO'
check 'all symbols bound at the start (full RELRO)' has "$headers" 'BIND_NOW|FLAGS_1.*NOW'
check 'stack not executable' stack_ok
check 'no segment both writable and executable' no_writable_code
check 'no relocations in code' no_text_relocations
check 'stack protector' has "$symbols" '__stack_chk_fail'
check 'checked libc calls (FORTIFY)' has "$symbols" '__(memcpy|snprintf|vsnprintf|fprintf|read|memset|printf|strcpy)_chk'
# The ELF note that switches CET on needs it in every object, and the start files of Debian 12 lack it: what can be
# seen is that Kinora's own code has its landing pads (endbr64).
landing_pads() { [ "$(LC_ALL=C grep -aoP '\xf3\x0f\x1e\xfa' "$program" | wc -l)" -gt 300 ]; }
[ "$(uname -m)" != x86_64 ] || check 'landing pads for indirect branches (CET)' landing_pads
check 'no library search path of its own' no_search_path
exit $bad
