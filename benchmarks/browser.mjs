// One contender in a browser of its own, as a worker of benchmarks/browser.py: a line of JSON in, a line out.
//
// node browser.mjs JOB, JOB being JSON: chromium (program), engine ("squeezebert" or "onnxruntime"), model (folder or
// file), threads, vocabulary (token ids lie below it), playwright and onnxruntime (folders of the packages), web (the
// package's page), source (its scripts).

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { join, normalize, extname } from 'node:path';
import { pathToFileURL } from 'node:url';

const job = JSON.parse(process.argv[2]);
const { chromium } = await import(pathToFileURL(join(job.playwright, 'index.mjs')));

const TYPES = { '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.html': 'text/html' };
const FOLDERS = { '/model/': job.model, '/ort/': join(job.onnxruntime, 'dist'), '/web/': job.web, '/source/': job.source };

// Each runs in a worker of the page, where a thread may wait for others; `load` gives a function of ids and of how many
// rows there are.
const WORKERS = {
  squeezebert: `
    import { Engine } from '/source/engine.js';
    const bytes = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
    const start = (task) => new Promise((resolve) => {
      const worker = new Worker('/source/thread.js', { type: 'module' });
      worker.onmessage = () => resolve();
      worker.postMessage(task);
    });
    async function load({ threads }) {
      const module = await WebAssembly.compile(await bytes('/web/squeezebert-relaxed.wasm'));
      const [config, tensors] = [await bytes('/model/config.json'), await bytes('/model/model.safetensors')];
      const engine = await Engine.load(module, config, [tensors], threads, start);
      return async (ids, rows, tokens) => engine.run(Array.from({ length: rows }, (_, row) => ids.slice(row * tokens, (row + 1) * tokens)));
    }`,
  onnxruntime: `
    import * as ort from '/ort/ort.wasm.min.mjs';
    async function load({ threads }) {
      ort.env.wasm.wasmPaths = '/ort/';
      ort.env.wasm.numThreads = threads;
      ort.env.logLevel = 'error';
      const session = await ort.InferenceSession.create('/model/model.onnx', { executionProviders: ['wasm'], graphOptimizationLevel: 'all' });
      return async (ids, rows, tokens) => {
        const tensor = (values) => new ort.Tensor('int64', BigInt64Array.from(values, BigInt), [rows, tokens]);
        const inputs = [ids, ids.map(() => 1), ids.map(() => 0)].map(tensor);
        const results = await session.run(Object.fromEntries(session.inputNames.map((name, i) => [name, inputs[i]])));
        return results[session.outputNames[0]].data;
      };
    }`,
};
const SERVE = `
  let run;
  onmessage = async ({ data }) => {
    try {
      if (data.load) {
        run = await load(data.load);
        return postMessage({ ready: true });
      }
      const ids = Array.from({ length: data.batch * data.tokens }, () => 1 + Math.floor(Math.random() * (data.vocabulary - 1)));
      const start = performance.now();
      const logits = await run(ids, data.batch, data.tokens);
      const seconds = (performance.now() - start) / 1000;
      if (!logits.every(Number.isFinite)) throw new Error('the logits are not finite');
      postMessage({ seconds });
    } catch (error) {
      postMessage({ error: String(error?.message ?? error) });
    }
  };`;

const server = createServer(async (request, response) => {
  const headers = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };
  const path = normalize(new URL(request.url, 'http://localhost').pathname);
  try {
    let body = '<!doctype html><title>bench</title>';
    if (path === '/worker.js') body = WORKERS[job.engine] + SERVE;
    else if (path !== '/') {
      const prefix = Object.keys(FOLDERS).find((each) => path.startsWith(each));
      body = await readFile(join(FOLDERS[prefix], path.slice(prefix.length)));
    }
    response.writeHead(200, { ...headers, 'Content-Type': path === '/' ? 'text/html' : (TYPES[extname(path)] ?? 'application/octet-stream') });
    response.end(body);
  } catch {
    response.writeHead(404, headers).end();
  }
}).listen(0, 'localhost');

const browser = await chromium.launch({ executablePath: job.chromium, args: ['--no-sandbox'] });
const page = await browser.newPage();
await page.goto(`http://localhost:${server.address().port}/`);
const isolated = await page.evaluate(() => crossOriginIsolated);
if (!isolated) throw new Error('the page is not cross-origin isolated, so there are no threads');

async function ask(question) {
  const answer = await page.evaluate(
    (words) =>
      new Promise((resolve) => {
        window.contender ??= new Worker('/worker.js', { type: 'module' });
        window.contender.onmessage = ({ data }) => resolve(data);
        window.contender.onerror = ({ message }) => resolve({ error: message });
        window.contender.postMessage(words);
      }),
    question,
  );
  if (answer.error) throw new Error(answer.error);
  return answer;
}

async function main() {
  await ask({ load: { threads: job.threads } });
  console.log('answer null');
  for await (const line of createInterface({ input: process.stdin })) {
    const { seconds } = await ask({ ...JSON.parse(line), vocabulary: job.vocabulary });
    console.log(`answer ${JSON.stringify(seconds)}`);
  }
}

try {
  await main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await browser.close();
  server.close();
}
