// The page's tokenizer and engine on the golden texts:
//     node logits.mjs MODULE.wasm ARTIFACT TOKENS.jsonl
// prints the logits of each row as JSON, or null where this node lacks an instruction of the module.

import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';

import { Engine } from '../../web/src/engine.js';
import { features } from '../../web/src/features.js';
import { Tokenizer } from '../../web/src/tokenizer.js';

const [modulePath, artifact, rowsPath] = process.argv.slice(2);
// node 20 has relaxed SIMD, but asks for a flag.
if (!features().relaxed) setFlagsFromString('--experimental-wasm-relaxed-simd');
const code = readFileSync(modulePath);
if (!WebAssembly.validate(code)) {
  console.log('null');
} else {
  const [config, tensors] = ['config.json', 'model.safetensors'].map((name) => readFileSync(`${artifact}/${name}`));
  const engine = await Engine.load(await WebAssembly.compile(code), config, [tensors]);
  const tokenizer = new Tokenizer(JSON.parse(readFileSync(`${artifact}/tokenizer.json`, 'utf8')));
  const rows = readFileSync(rowsPath, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  const encodings = rows.map(({ text, pair, max_length: maxLength }) => tokenizer.encode(text, pair, maxLength));
  const flat = [...engine.run(encodings.map(({ ids }) => ids), encodings.map(({ types }) => types))];
  const width = engine.numLabels;
  console.log(JSON.stringify(rows.map((_, i) => flat.slice(i * width, (i + 1) * width))));
}
