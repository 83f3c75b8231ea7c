// The engine's WebAssembly module (native/wasm): bytes of an artifact and token ids -> logits.
//
// Its memory is shared between threads, and grows: views of it are made anew for each use.

const PAGES = 64; // of 64 KB, as native/wasm/build.sh links the module
const MOST_PAGES = 8192;
const STACK_BYTES = 256 * 1024;
const MESSAGE_BYTES = 1024;
const INFO_FIELDS = ['vocabSize', 'hiddenSize', 'layers', 'maxPositions', 'numLabels', 'perToken', 'hasPooler', 'threads'];

/** What the engine refuses: `kind` is "input" (a bad file or argument), "memory" or "fault". */
export class EngineError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = 'EngineError';
    this.kind = kind;
  }
}

/** Text at an address, up to its zero byte. A decoder refuses shared memory, hence the copy. */
function readText(memory, address) {
  const bytes = new Uint8Array(memory.buffer);
  return new TextDecoder().decode(bytes.slice(address, bytes.indexOf(0, address)));
}

/** What the module asks for: its memory, a way to throw, and stubs of the system calls that its C library mentions. */
function importsOf(module, memory) {
  const imports = { env: { memory } };
  imports.env.fail = (code, message) => {
    throw new EngineError(['', 'input', 'memory'][code] ?? 'fault', readText(memory, message));
  };
  for (const { module: group, name, kind } of WebAssembly.Module.imports(module)) {
    if (kind !== 'function' || group === 'env') continue;
    imports[group] ??= {};
    imports[group][name] = () => {
      throw new EngineError('fault', `the engine stopped (${name})`);
    };
  }
  return imports;
}

/** Serve one of the engine's threads; called in a worker of its own, and never returns. */
export async function serveThread({ module, memory, stack, slot }, ready) {
  const { exports } = await WebAssembly.instantiate(module, importsOf(module, memory));
  exports.__stack_pointer.value = stack;
  ready();
  exports.sqb_wasm_serve(slot);
}

/** A loaded model. */
export class Engine {
  #exports;
  #memory;
  #engine;

  /**
   * @param {WebAssembly.Module} module the compiled engine
   * @param {Uint8Array} config an artifact's config.json
   * @param {Uint8Array[]} tensors its model.safetensors, in pieces that follow one another; emptied when copied
   * @param {number} threads threads to use
   * @param {(task: object) => Promise<void>} [startThread] starts a worker that calls serveThread(task); needed for more
   *   threads than one
   */
  static async load(module, config, tensors, threads = 1, startThread = undefined) {
    const engine = new Engine();
    engine.#memory = new WebAssembly.Memory({ initial: PAGES, maximum: MOST_PAGES, shared: true });
    const instance = await WebAssembly.instantiate(module, importsOf(module, engine.#memory));
    engine.#exports = instance.exports;
    engine.#call('_initialize');
    for (let slot = 0; slot < threads - 1; slot++) {
      const stack = engine.#take(STACK_BYTES) + STACK_BYTES;
      await startThread({ module, memory: engine.#memory, stack, slot });
    }
    engine.#open(config, tensors, threads);
    return engine;
  }

  #open(config, tensors, threads) {
    const size = tensors.reduce((sum, piece) => sum + piece.length, 0);
    const configAt = this.#take(config.length);
    const tensorsAt = this.#take(size);
    const bytes = new Uint8Array(this.#memory.buffer);
    bytes.set(config, configAt);
    for (let at = tensorsAt; tensors.length > 0; ) {
      const piece = tensors.shift();
      bytes.set(piece, at);
      at += piece.length;
    }
    const out = this.#take(4);
    const error = this.#take(MESSAGE_BYTES);
    this.#call('sqb_load_memory', configAt, config.length, tensorsAt, size, threads, 0, out, error, MESSAGE_BYTES);
    this.#engine = new Int32Array(this.#memory.buffer)[out / 4];
    const info = this.#take(4 * (INFO_FIELDS.length + 1));
    this.#call('sqb_get_info', this.#engine, info);
    const values = new Int32Array(this.#memory.buffer, info, INFO_FIELDS.length + 1);
    INFO_FIELDS.forEach((name, i) => (this[name] = values[i]));
    this.instructionSet = readText(this.#memory, values[INFO_FIELDS.length]);
    for (const address of [configAt, out, error, info]) this.#exports.free(address);
  }

  /**
   * Run a ragged batch: logits, `numLabels` for each sequence in turn.
   * @param {number[][]} ids tokens of each sequence
   * @param {number[][] | null} types their segments; null: all 0
   */
  run(ids, types = null) {
    const tokens = ids.reduce((sum, row) => sum + row.length, 0);
    // ids, types, lengths, logits, the four pointers of sqb_outputs
    const counts = [tokens, types === null ? 0 : tokens, ids.length, ids.length * this.numLabels, 4];
    const start = this.#take(4 * counts.reduce((sum, count) => sum + count, 0) + MESSAGE_BYTES);
    const at = counts.map((_, i) => start + 4 * counts.slice(0, i).reduce((sum, count) => sum + count, 0));
    const words = new Int32Array(this.#memory.buffer);
    words.set(ids.flat(), at[0] / 4);
    if (types !== null) words.set(types.flat(), at[1] / 4);
    words.set(ids.map((row) => row.length), at[2] / 4);
    words.set([at[3], 0, 0, 0], at[4] / 4);
    try {
      const typesAt = types === null ? 0 : at[1];
      this.#call('sqb_run', this.#engine, at[0], typesAt, at[2], ids.length, at[4], at[4] + 16, MESSAGE_BYTES);
      return new Float32Array(this.#memory.buffer).slice(at[3] / 4, at[3] / 4 + counts[3]);
    } finally {
      this.#exports.free(start);
    }
  }

  #take(bytes) {
    const address = this.#exports.malloc(bytes);
    if (address === 0) throw new EngineError('memory', 'not enough memory for this model');
    return address;
  }

  /** Errors leave WebAssembly without unwinding its stack, so the stack pointer is put back. */
  #call(name, ...values) {
    const stack = this.#exports.__stack_pointer.value;
    try {
      this.#exports[name](...values);
    } catch (error) {
      this.#exports.__stack_pointer.value = stack;
      if (error instanceof EngineError) throw error;
      // The C++ library ends the program where memory runs out.
      throw new EngineError('memory', `the engine stopped, most likely for want of memory (${error.message})`);
    }
  }
}
