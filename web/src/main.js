// The page: loads the model in a worker, then lets the two panels ask it.

import { Client } from './client.js';
import { startMany } from './many.js';
import { startOne } from './one.js';
import { find, showProblem } from './show.js';

const SETS = {
  'wasm-relaxed-unsigned': 'WebAssembly with relaxed SIMD',
  'wasm-relaxed-signed': 'WebAssembly with relaxed SIMD',
  wasm: 'WebAssembly with SIMD',
};

let about = null;
let opens = 0; // models that were asked for; only the newest is shown

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function describe({ layers, hiddenSize, size, maxLength, threads, instructionSet, milliseconds }) {
  const how = `${SETS[instructionSet] ?? instructionSet}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
  return (
    `${layers} layers, ${hiddenSize} channels, ${megabytes(size)} in int8; reads up to ${maxLength} tokens of a text. ` +
    `Runs on ${how}. Loaded in ${(milliseconds / 1000).toFixed(2)} s.`
  );
}

/** Load the site's model, or with `files` (name -> File) one from this device. */
async function open(client, files) {
  const mine = ++opens;
  showProblem(find('problem'), null);
  const text = find('loading-text');
  find('loading').hidden = false;
  text.textContent = 'Loading the model';
  try {
    const tell = ({ done }) => (find('loading-size').textContent = megabytes(done));
    const opened = await client.ask('open', { files }, tell);
    if (mine !== opens) return false;
    about = opened;
    find('about').textContent = describe(about);
    for (const id of ['pair-field', 'pair-column-field']) find(id).hidden = about.pair !== true;
    find('classifier').hidden = false;
    return true;
  } catch (error) {
    if (mine !== opens) return false;
    const kept = about === null ? '' : ' The former model stays.';
    showProblem(find('problem'), `The model cannot be loaded: ${error.message}.${kept}`);
    return false;
  } finally {
    if (mine === opens) find('loading').hidden = true;
  }
}

/** Two tabs, as the ARIA practices have them: arrows move between them, Tab goes into the panel. */
function startTabs() {
  const tabs = [find('tab-one'), find('tab-many')];
  const choose = (chosen) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute('aria-selected', String(on));
      tab.tabIndex = on ? 0 : -1;
      find(tab.getAttribute('aria-controls')).hidden = !on;
    }
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener('click', () => choose(tab));
    tab.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = event.key === 'Home' ? tabs[0] : event.key === 'End' ? tabs.at(-1) : tabs[(i + (step ?? 0) + 2) % 2];
      if (next === tab) return;
      event.preventDefault();
      choose(next);
      next.focus();
    });
  });
}

async function start() {
  if (location.protocol === 'file:') {
    find('loading').hidden = true;
    return showProblem(
      find('problem'),
      'This page was opened as a file, and browsers let no such page load its model. Serve its folder, for example with ' +
        'squeezebert demo or python -m http.server, and open it from there.',
    );
  }
  const client = new Client();
  startTabs();
  const answer = startOne(client, () => about);
  startMany(client, () => about);
  find('model-files').addEventListener('change', async ({ target }) => {
    const files = Object.fromEntries([...target.files].map((file) => [file.name, file]));
    target.value = '';
    if (await open(client, files)) answer();
  });
  if (await open(client, null)) answer();
}

start();
