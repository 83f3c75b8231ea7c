#!/usr/bin/env bash
# Build the page into src/squeezebert/web, where the package takes it from: build.sh [OUT]
# The engine's modules are built with it unless they are given: WASM=FOLDER build.sh. Needs node 18 or later, and what
# native/wasm/build.sh needs.
set -euo pipefail
web=$(cd "$(dirname "$0")" && pwd)
output=${1:-$web/../src/squeezebert/web}
cd "$web"
[[ -d node_modules ]] || npm ci
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${WASM:-} ]]; then
  ../native/wasm/build.sh "$work"
  WASM=$work
fi
mkdir -p "$output"
# Classic scripts, not modules: the page can then say what is wrong where it is opened as a file.
npx esbuild src/main.js src/worker.js src/thread.js --bundle --format=iife --minify --target=es2022 \
  --legal-comments=none --log-level=warning --outdir="$output"
npx esbuild src/style.css --minify --log-level=warning --outfile="$output/style.css"
cp src/index.html src/_headers "$output/"
cp node_modules/@huggingface/tokenizers/LICENSE "$output/tokenizers-LICENSE.txt"
cp "$WASM"/squeezebert.wasm "$WASM"/squeezebert-relaxed.wasm "$output/"
chmod 644 "$output"/*
