#!/usr/bin/env bash
# Print one SHA-256 over names and contents of what the WebAssembly modules are made from. build.sh puts it into the modules, so
# that a test finds a module older than its sources without compiling anything.
set -euo pipefail
cd "$(dirname "$0")/.."
find src include wasm -type f ! -name '.*' ! -name 'avx*' ! -name 'neon*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum |
  sha256sum | cut -d ' ' -f 1
