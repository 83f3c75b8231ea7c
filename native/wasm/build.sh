#!/usr/bin/env bash
# The engine as WebAssembly: build.sh OUT writes OUT/squeezebert.wasm and OUT/squeezebert-relaxed.wasm;
# build.sh OUT --tests writes the tests of the operations as programs for WASI, OUT/test_ops.wasm and OUT/test_ops-relaxed.wasm.
#
# Needs clang 18 or later with its wasm32 C++ library, and wasi-libc. On Debian:
#     apt install clang-19 lld-19 libc++-19-dev-wasm32 libclang-rt-19-dev-wasm32 wasi-libc
set -euo pipefail
output=${1:?usage: build.sh OUT [--tests]}
native=$(cd "$(dirname "$0")/.." && pwd)
clang=${CLANG:-clang++-19}
mkdir -p "$output"

# -fignore-exceptions, include/: see runtime.cc and include/thread. --no-check-features: the C and C++ libraries are built
# without atomics, which is sound here, since workers compute only: they take no memory and call nothing with a state.
flags=(--target=wasm32-wasi -std=c++17 -O3 -msimd128 -mbulk-memory -fignore-exceptions -ffp-contract=off
  -fno-ident -Wall -Wextra -DSQB_WASM=1 -isystem "$native/wasm/include" -I "$native/src" -I "$native/include")
engine=("$native"/src/{aligned,artifact,json,kernels,model,threads}.cc "$native"/src/ops/*/*.cc "$native/src/isa/wasm.cc"
  "$native/wasm/runtime.cc")
relaxed=(-mrelaxed-simd -DSQB_WASM_RELAXED=1 "$native/src/isa/wasm_relaxed.cc")

if [[ ${2:-} == --tests ]]; then
  tests=("${flags[@]}" "${engine[@]}" "$native/tests/test_ops.cc" -Wl,-z,stack-size=1048576)
  "$clang" "${tests[@]}" -o "$output/test_ops.wasm"
  "$clang" "${tests[@]}" "${relaxed[@]}" -o "$output/test_ops-relaxed.wasm"
  exit
fi

# One module for pages with and without threads: a shared memory exists in both, and only starting workers on it needs
# an isolated page. 512 MB hold the largest model twice.
module=("${flags[@]}" -matomics -mthread-model posix "${engine[@]}" "$native/src/api.cc" -mexec-model=reactor -s
  -Wl,--shared-memory,--import-memory,--max-memory=536870912,--no-check-features -Wl,-z,stack-size=262144
  -Wl,--export=malloc,--export=free,--export=__stack_pointer
  -Wl,--export=sqb_load_memory,--export=sqb_free,--export=sqb_get_info,--export=sqb_run)
"$clang" "${module[@]}" -o "$output/squeezebert.wasm"
"$clang" "${module[@]}" "${relaxed[@]}" -o "$output/squeezebert-relaxed.wasm"
