// Run an artifact through the engine's WebAssembly module in node:
//     node run_wasm.mjs MODULE ARTIFACT THREADS < {"ids": [[...], ...], "types": [[...], ...] or null}
// prints {"info": {...}, "logits": [...]}, or {"error": "..."} for what the engine refuses.

import { readFileSync } from 'node:fs';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

import { Engine, EngineError, serveThread } from '../../web/src/engine.js';

async function main([modulePath, artifact, threads]) {
  const module = await WebAssembly.compile(readFileSync(modulePath));
  const workers = [];
  const startThread = (task) =>
    new Promise((resolve) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: task });
      worker.once('message', resolve);
      workers.push(worker);
    });
  const { ids, types } = JSON.parse(readFileSync(0, 'utf8'));
  try {
    const tensors = readFileSync(`${artifact}/model.safetensors`);
    const middle = tensors.length >> 1;
    const pieces = [tensors.subarray(0, middle), tensors.subarray(middle)];
    const config = readFileSync(`${artifact}/config.json`);
    const engine = await Engine.load(module, config, pieces, Number(threads), startThread);
    const logits = [...engine.run(ids, types)];
    console.log(JSON.stringify({ info: engine, logits }));
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    console.log(JSON.stringify({ error: error.message, kind: error.kind }));
  }
  for (const worker of workers) await worker.terminate();
}

if (isMainThread) await main(process.argv.slice(2));
else await serveThread(workerData, () => parentPort.postMessage('ready'));
