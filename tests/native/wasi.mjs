// Run a program compiled for WASI: node wasi.mjs PROGRAM.wasm

import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';

const wasi = new WASI({ version: 'preview1', args: ['test'] });
const imports = wasi.getImportObject();
// The engine throws by calling this; see native/wasm/runtime.cc.
imports.env = {
  fail(code) {
    throw new Error(`the engine threw, code ${code}`);
  },
};
const { instance } = await WebAssembly.instantiate(readFileSync(process.argv[2]), imports);
process.exit(wasi.start(instance));
