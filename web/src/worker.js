// The model, away from the page: messages in, predictions out. Every answer carries the id of its question.

import { EngineError } from './engine.js';
import { features } from './features.js';
import { FILES, Model } from './model.js';

// More threads than this gain little at the lengths of a page's texts, and phones slow down.
const MOST_THREADS = 4;

let engine; // promise of the compiled module and the number of threads
let model;
let workers = []; // the model's threads
let opening; // number of the newest question for a model
// The panel that a question belongs to, and the id of each panel's newest. Work on an older question of a panel stops; the
// other panel's goes on, in turns, piece by piece.
const PANELS = { classify: 'one', explain: 'one', batch: 'many', stop: 'many' };
const newest = { one: 0, many: 0 };

/** A file over the network, in pieces; `tell` hears of each. */
async function fetchPieces(url, tell) {
  const response = await fetch(url).catch(() => {
    throw new EngineError('input', `${url} cannot be fetched; is the network there, and the folder complete?`);
  });
  if (!response.ok) throw new EngineError('input', `${url} is missing from this site (${response.status})`);
  const pieces = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return pieces;
    pieces.push(value);
    tell(value.length);
  }
}

/** Refuse a browser that cannot run the engine, before anything is fetched in vain. */
function checkBrowser() {
  const { simd, shared } = features();
  if (simd && shared) return;
  throw new EngineError(
    'input',
    'this browser cannot run the model: it lacks WebAssembly SIMD, which Chrome 91, Firefox 89 and Safari 16.4 brought; ' +
      'please use a newer one',
  );
}

async function compileEngine(tell) {
  const { relaxed } = features();
  const pieces = await fetchPieces(relaxed ? 'squeezebert-relaxed.wasm' : 'squeezebert.wasm', tell);
  const module = await WebAssembly.compile(await new Blob(pieces).arrayBuffer());
  const threads = self.crossOriginIsolated ? Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency ?? 1)) : 1;
  return { module, threads };
}

/** The compiled engine, fetched once; what fails is forgotten, so that the next model may try again. */
function compiledEngine(tell) {
  engine ??= compileEngine(tell).catch((error) => {
    engine = undefined;
    throw error;
  });
  return engine;
}

/** Start one of the engine's threads, note it in `started`, and wait until it is there. */
function startThread(started, task) {
  return new Promise((resolve, reject) => {
    const worker = new Worker('thread.js');
    started.push(worker);
    worker.onmessage = () => resolve();
    worker.onerror = () => reject(new EngineError('thread', 'a thread of the engine cannot be started'));
    worker.postMessage(task);
  });
}

/** Let messages in. */
function pause() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => resolve();
    port2.postMessage(null);
  });
}

const answers = {
  /**
   * Load the model of this site, or one from `files`: name -> File. Work with the former model stops once it is replaced.
   * Null where another was asked for before this one was there.
   */
  async open({ id, files }) {
    checkBrowser();
    opening = id;
    let loaded = 0;
    const tell = (bytes) => self.postMessage({ id, kind: 'progress', done: (loaded += bytes) });
    const start = performance.now();
    const read = async (name) => {
      if (files === null) return [name, await fetchPieces(`model/${name}`, tell)];
      if (files[name] === undefined) throw new EngineError('input', `${name} is missing; choose ${FILES.join(', ')} together`);
      return [name, [new Uint8Array(await files[name].arrayBuffer())]];
    };
    const [{ module, threads }, ...entries] = await Promise.all([compiledEngine(tell), ...FILES.map(read)]);
    const contents = Object.fromEntries(entries);
    let [opened, started] = [null, []];
    try {
      opened = await Model.load(module, contents, threads, (task) => startThread(started, task));
    } catch (error) {
      for (const worker of started) worker.terminate();
      if (error.kind !== 'thread') throw error;
      // The network has gone, and with it thread.js: one thread does it, too.
      started = [];
      opened = await Model.load(module, contents, 1);
    }
    if (opening !== id) {
      for (const worker of started) worker.terminate(); // another model was chosen meanwhile
      return null;
    }
    model = opened;
    for (const worker of workers) worker.terminate();
    workers = started;
    return { ...model.about, milliseconds: performance.now() - start };
  },

  async classify({ row }) {
    return model.classify(row);
  },

  async explain({ id, row }) {
    const mine = model;
    const steps = mine.explain(row);
    for (;;) {
      const { done, value } = steps.next();
      if (done) return value;
      self.postMessage({ id, kind: 'progress', ...value });
      await pause();
      if (id !== newest.one || mine !== model) return null;
    }
  },

  async batch({ id, rows }) {
    const mine = model;
    for (const predictions of mine.stream(rows)) {
      self.postMessage({ id, kind: 'progress', predictions });
      await pause();
      if (id !== newest.many || mine !== model) return false;
    }
    return true;
  },

  async stop() {
    return true;
  },
};

self.onmessage = async ({ data }) => {
  if (data.kind in PANELS) newest[PANELS[data.kind]] = data.id;
  try {
    self.postMessage({ id: data.id, kind: 'answer', value: await answers[data.kind](data) });
  } catch (error) {
    const known = error instanceof EngineError;
    self.postMessage({ id: data.id, kind: 'failure', message: known ? error.message : `a fault of this page: ${error.message}` });
  }
};
