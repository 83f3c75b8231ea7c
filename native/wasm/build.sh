#!/usr/bin/env bash
# The engine as WebAssembly: build.sh OUT writes OUT/squeezebert.wasm and OUT/squeezebert-relaxed.wasm. With --tests after OUT
# it writes programs for WASI instead: OUT/test_ops.wasm, OUT/test_ops-relaxed.wasm and OUT/test_wasm_relaxed.wasm.
#
# Needs clang 18 or later with its wasm32 C++ library, and wasi-libc. On Debian:
#     apt install clang-19 lld-19 libc++-19-dev-wasm32 libclang-rt-19-dev-wasm32 wasi-libc
set -euo pipefail
output=${1:?usage: build.sh OUT [--tests]}
clang=${CLANG:-clang++-19}
mkdir -p "$output"
output=$(cd "$output" && pwd)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# -fignore-exceptions, wasm/include: see wasm/runtime.cc and wasm/include/thread.
flags=(--target=wasm32-wasi -std=c++17 -O3 -msimd128 -mbulk-memory -matomics -mthread-model posix -fignore-exceptions
  -ffp-contract=off -Wall -Wextra -DSQB_WASM=1 -isystem wasm/include -I src -I include)
sources=(src/*.cc src/ops/*/*.cc src/isa/wasm.cc wasm/runtime.cc)
relaxed=(-mrelaxed-simd -DSQB_WASM_RELAXED=1)

# compile VARIANT FLAGS... -- SOURCES...: objects in $work/VARIANT
compile() {
  local variant=$1 extra=()
  shift
  while [[ $1 != -- ]]; do extra+=("$1") && shift; done
  shift
  mkdir -p "$work/$variant"
  for source in "$@"; do
    "$clang" "${flags[@]}" "${extra[@]}" -c "$source" -o "$work/$variant/${source//\//_}.o"
  done
}

# link NAME ARGUMENTS...: --no-check-features since the C and C++ libraries are built without atomics, which is sound here:
# threads compute only; they take no memory and call nothing that has a state.
link() {
  local name=$1
  shift
  "$clang" --target=wasm32-wasi -s -Wl,--no-check-features "$@" -o "$output/$name.wasm"
}

compile plain -- "${sources[@]}"
compile relaxed "${relaxed[@]}" -- "${sources[@]}" src/isa/wasm_relaxed.cc
if [[ ${2:-} == --tests ]]; then
  compile plain-tests -- tests/test_ops.cc
  compile relaxed-tests "${relaxed[@]}" -- tests/test_ops.cc tests/test_wasm_relaxed.cc
  stack=-Wl,-z,stack-size=1048576
  link test_ops "$stack" "$work"/plain/*.o "$work/plain-tests/tests_test_ops.cc.o"
  link test_ops-relaxed "$stack" "$work"/relaxed/*.o "$work/relaxed-tests/tests_test_ops.cc.o"
  link test_wasm_relaxed "$stack" "$work"/relaxed/*.o "$work/relaxed-tests/tests_test_wasm_relaxed.cc.o"
  exit
fi

# One module for pages with and without threads: a shared memory exists in both, and only starting workers on it needs
# an isolated page. 512 MB hold the largest model twice.
module=(-mexec-model=reactor -Wl,--shared-memory,--import-memory,--max-memory=536870912 -Wl,-z,stack-size=262144
  -Wl,--export=malloc,--export=free,--export=__stack_pointer
  -Wl,--export=sqb_load_memory,--export=sqb_free,--export=sqb_get_info,--export=sqb_run)
link squeezebert "${module[@]}" "$work"/plain/*.o
link squeezebert-relaxed "${module[@]}" "$work"/relaxed/*.o

# A custom section "sources" at the end of each module: section 0, 72 bytes, a name of 7, 64 hexadecimal digits.
for name in squeezebert squeezebert-relaxed; do
  printf '\0\110\7sources%s' "$(wasm/sources.sh)" >>"$output/$name.wasm"
done
