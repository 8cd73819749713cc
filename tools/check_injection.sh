#!/usr/bin/env bash
# tools/check_injection.sh BUILD - can tests/fault/inject_cuda.c fail every function of CUDA, cuBLASLt and cuDNN that the
# program calls? Reads the symbols of the layers' libraries and the lists of functions that are looked for at run time.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
bad=0
missing() { # WHAT USED INJECTED
  local names
  names=$(comm -23 <(sort -u <<<"$2") <(sort -u <<<"$3"))
  [ -n "$2" ] || { echo "NO   $1: none found at all"; bad=1; return; }
  if [ -z "$names" ]; then echo "yes  $1: $(sort -u <<<"$2" | wc -l)"; else
    echo "NO   $1 without an injected failure:" $names
    bad=1
  fi
}
# Not calls that fail: texts, and what the compiler adds around kernels.
never='^(cudaGetErrorName|cudaGetErrorString|__cuda(GetKernel|(Push|Pop)CallConfiguration|(Unr|R)egister.*))$'
used=$(nm -u "$build"/libkn_*.a 2>/dev/null | awk '$2 ~ /^_*cuda/ {print $2}' | grep -vE "$never")
wrapped=$(nm "$build/tests/fault_pipeline_points" | awk '$2 == "T" && sub(/^__wrap_/, "", $3) {print $3}')
missing "functions of CUDA's runtime" "$used" "$wrapped"
listed() { grep -ohE 'X\((cublasLt|cudnn)[A-Za-z]+' "$@" | sed 's/X(//' | grep -v 'String$'; }
missing 'functions of cuBLASLt and cuDNN' "$(listed compute/*.c compute/*.h)" "$(listed tests/fault/inject_cuda.c)"
exit $bad
