// node tokens.mjs TOKENIZER_JSON TOKENS_JSONL: prints each row on which the page's tokenizer differs, and exits with 1.

import { readFileSync } from 'node:fs';

import { Tokenizer } from '../../web/src/tokenizer.js';

const [tokenizerPath, rowsPath] = process.argv.slice(2);
const tokenizer = new Tokenizer(JSON.parse(readFileSync(tokenizerPath, 'utf8')));
let different = 0;
for (const line of readFileSync(rowsPath, 'utf8').trim().split('\n')) {
  const { text, pair, max_length: maxLength, ids, types } = JSON.parse(line);
  const got = tokenizer.encode(text, pair, maxLength);
  if (JSON.stringify([got.ids, got.types]) === JSON.stringify([ids, types])) continue;
  different++;
  console.log(JSON.stringify({ text, pair, maxLength, want: ids, got: got.ids, tokens: got.tokens }));
}
process.exit(different === 0 ? 0 : 1);
