// An artifact in the browser: texts -> predictions, and what each token adds to one.

import { Engine, EngineError } from './engine.js';
import { decide, kindOf, logOdds } from './scores.js';
import { Tokenizer } from './tokenizer.js';

// Tokens of one run: what the engine computes at a time, and some tens of milliseconds between two looks at messages.
const RUN_TOKENS = 1024;

/** Files of an artifact that the page reads. */
export const FILES = ['config.json', 'tokenizer.json', 'model.safetensors'];

function parse(name, bytes) {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new EngineError('input', `${name} is damaged or no JSON file; export the model again`);
  }
}

export class Model {
  #engine;
  #tokenizer;
  #labels;
  #kind;
  #maxLength;

  /**
   * @param {WebAssembly.Module} module the compiled engine
   * @param {Record<string, Uint8Array[]>} files name of each of FILES -> its bytes, in pieces; emptied
   */
  static async load(module, files, threads, startThread) {
    const model = new Model();
    const size = FILES.reduce((sum, name) => sum + files[name].reduce((all, piece) => all + piece.length, 0), 0);
    const configBytes = joined(files['config.json']);
    const config = parse('config.json', configBytes);
    if (config?.format !== 'squeezebert-native')
      throw new EngineError('input', 'config.json: not an exported model; make one with squeezebert export native');
    if (config.head !== 'sequence_classification' || !Array.isArray(config.labels) || config.labels.length === 0)
      throw new EngineError('input', `this model gives no label to a text (its head is ${config.head}); export a classifier`);
    try {
      model.#tokenizer = new Tokenizer(parse('tokenizer.json', joined(files['tokenizer.json'])));
    } catch (error) {
      if (error instanceof EngineError) throw error;
      throw new EngineError('input', `tokenizer.json: ${error.message}`);
    }
    model.#labels = config.labels;
    model.#kind = kindOf(config);
    model.#engine = await Engine.load(module, configBytes, files['model.safetensors'], threads, startThread);
    model.#maxLength = config.max_length ?? model.#engine.maxPositions;
    if (model.#engine.numLabels !== config.labels.length)
      throw new EngineError('input', 'config.json: labels and num_labels disagree; export the model again');
    const { hiddenSize, layers, instructionSet } = model.#engine;
    /** What the page shows of the model. */
    model.about = {
      labels: config.labels,
      kind: model.#kind,
      pair: config.pair,
      maxLength: model.#maxLength,
      size,
      hiddenSize,
      layers,
      instructionSet,
      threads,
    };
    return model;
  }

  encode([text, pair]) {
    return this.#tokenizer.encode(text, pair, this.#maxLength);
  }

  /** Logits of encodings, an array for each. */
  #logits(encodings) {
    const types = encodings.map(({ types }) => types);
    const flat = this.#engine.run(encodings.map(({ ids }) => ids), types);
    const width = this.#labels.length;
    return encodings.map((_, i) => flat.slice(i * width, (i + 1) * width));
  }

  /** Predict one [text, second text or null]. */
  classify(row) {
    const start = performance.now();
    const encoding = this.encode(row);
    const tokenized = performance.now();
    const [logits] = this.#logits([encoding]);
    const end = performance.now();
    const { tokens, cut } = encoding;
    const times = { tokenizing: tokenized - start, model: end - tokenized };
    return { ...decide(this.#kind, this.#labels, logits), logits: [...logits], tokens, cut, times };
  }

  /** Predict rows; after every run of about RUN_TOKENS, gives the number of rows done and their predictions. */
  *stream(rows) {
    let batch = [];
    let tokens = 0;
    for (let i = 0; i < rows.length; i++) {
      const encoding = this.encode(rows[i]);
      batch.push(encoding);
      tokens += encoding.ids.length;
      if (tokens >= RUN_TOKENS || i === rows.length - 1) {
        yield this.#logits(batch).map((logits) => decide(this.#kind, this.#labels, logits));
        [batch, tokens] = [[], 0];
      }
    }
  }

  /**
   * What each token adds: the log-odds of the text's label, less those without that token (of a regression, the value).
   * Gives {done, of} as it goes on, and returns an array with null for the special tokens around the text.
   */
  *explain(row) {
    const encoding = this.encode(row);
    const { ids, types } = encoding;
    const [logits] = this.#logits([encoding]);
    const { best } = decide(this.#kind, this.#labels, logits);
    const whole = logOdds(this.#kind, logits, best);
    const last = ids.length - 1;
    const middle = types.indexOf(1) - 1; // the [SEP] between two texts
    const places = ids.map((_, i) => i).filter((i) => i !== 0 && i !== last && i !== middle);
    const shares = new Array(ids.length).fill(null);
    const without = (list, i) => list.filter((_, j) => j !== i);
    const atOnce = Math.max(1, Math.floor(RUN_TOKENS / ids.length));
    for (let start = 0; start < places.length; start += atOnce) {
      const part = places.slice(start, start + atOnce);
      const left = this.#logits(part.map((i) => ({ ids: without(ids, i), types: without(types, i) })));
      left.forEach((row, i) => {
        shares[part[i]] = whole - logOdds(this.#kind, row, best);
      });
      yield { done: start + part.length, of: places.length };
    }
    return shares;
  }
}

function joined(pieces) {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
