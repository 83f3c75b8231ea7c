// The panel of many texts: a pasted list or a file -> a table of predictions to download.

import { csvLine, guessColumn, linesOf, readTable } from './csv.js';
import { bar, find, make, percent, showProblem } from './show.js';

const SHOWN_ROWS = 200; // of the table; the download has them all
const TEXT_NAMES = ['text', 'sentence', 'sentence1', 'question', 'premise', 'review', 'content'];
const PAIR_NAMES = ['pair', 'sentence2', 'hypothesis', 'text2', 'question2'];

let table = null; // the chosen file: {columns, rows}
let running = false;
let address = null; // of the download

/** The rows to classify: [text, second text or null]. */
function inputRows(about) {
  const pairs = about.pair === true;
  if (table !== null && table.columns.length > 0) {
    const [column, pair] = [find('column').selectedIndex, find('pair-column').selectedIndex];
    if (pairs && column === pair) throw new Error(`both texts come from ${table.columns[column]}; choose two columns`);
    return table.rows.map((row) => [row[column], pairs ? row[pair] : null]);
  }
  const lines = table === null ? linesOf(find('list').value) : table.rows.map(([line]) => line);
  if (!pairs) return lines.map((line) => [line, null]);
  return lines.map((line, i) => {
    const parts = line.split('\t');
    if (parts.length !== 2) throw new Error(`line ${i + 1}: this model takes pairs; put a tab between the two texts`);
    return parts;
  });
}

async function openFile(file) {
  showProblem(find('batch-problem'), null);
  try {
    let text;
    try {
      text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
    } catch {
      throw new Error(`${file.name}: not a text file in UTF-8`);
    }
    table = readTable(file.name, text);
    const { columns, rows } = table;
    find('file-name').textContent = `${file.name}: ${rows.length} rows`;
    for (const [id, names] of [['column', TEXT_NAMES], ['pair-column', PAIR_NAMES]]) {
      find(id).replaceChildren(...columns.map((name) => make('option', { text: name })));
      find(id).selectedIndex = Math.max(guessColumn(columns, names), 0);
      find(id).disabled = columns.length === 0;
    }
    find('columns').hidden = false;
  } catch (error) {
    table = null;
    find('columns').hidden = true;
    showProblem(find('batch-problem'), error.message);
  }
}

/** Bars of how many texts have each label; of a regression, none. */
function showCounts(about, predictions) {
  if (about.kind === 'regression') return find('counts').replaceChildren();
  const counts = about.labels.map((label) => predictions.filter((each) => each.label.split(';').includes(label)).length);
  const top = Math.max(...counts);
  const all = predictions.length;
  find('counts').replaceChildren(
    ...about.labels.map((label, i) => bar(label, counts[i] / all, String(counts[i]), counts[i] === top)),
  );
}

function tableRow(row, number, prediction, about) {
  const cells = [String(number), prediction.label.replaceAll(';', ', ')];
  cells.push(about.kind === 'regression' ? '' : percent(prediction.score), row.filter((part) => part !== null).join(' | '));
  return make('tr', { children: cells.map((text) => make('td', { text })) });
}

/** The predictions as CSV; columns as `squeezebert classify --output` has them, and the texts. */
function toCsv(about, rows, predictions) {
  const number = (x) => String(Math.round(x * 1e6) / 1e6);
  const labels = about.kind === 'regression' ? [] : about.labels;
  const texts = rows[0][1] === null ? ['text'] : ['text', 'pair'];
  const lines = [csvLine(['row', 'label', 'score', ...labels.map((label) => `score_${label}`), ...texts])];
  predictions.forEach(({ label, score, scores }, i) => {
    const values = labels.length === 0 ? [] : scores.map(number);
    lines.push(csvLine([String(i + 1), label, number(score), ...values, ...rows[i].slice(0, texts.length)]));
  });
  return new Blob(lines, { type: 'text/csv' });
}

async function classifyAll(client, about) {
  showProblem(find('batch-problem'), null);
  let rows;
  try {
    rows = inputRows(about);
    if (rows.length === 0) throw new Error('there are no texts; paste some above, or choose a file');
  } catch (error) {
    return showProblem(find('batch-problem'), error.message);
  }
  const predictions = [];
  const [bars, status] = [find('batch-bar'), find('batch-status')];
  running = true;
  find('start').disabled = true;
  for (const id of ['stop', 'batch-progress']) find(id).hidden = false;
  for (const id of ['download', 'batch-result']) find(id).hidden = true;
  find('rows').replaceChildren();
  bars.max = rows.length;
  bars.value = 0;
  status.textContent = `Classifying ${rows.length} texts`;
  const start = performance.now();
  try {
    const whole = await client.ask('batch', { rows }, (message) => {
      const first = predictions.length;
      predictions.push(...message.predictions);
      bars.value = predictions.length;
      const shown = rows.slice(first, Math.min(predictions.length, SHOWN_ROWS));
      find('rows').append(...shown.map((row, i) => tableRow(row, first + i + 1, predictions[first + i], about)));
    });
    const seconds = (performance.now() - start) / 1000;
    const rate = (predictions.length / seconds).toFixed(0);
    status.textContent = whole
      ? `${predictions.length} texts in ${seconds.toFixed(1)} s, ${rate} a second`
      : `Stopped after ${predictions.length} of ${rows.length} texts`;
  } catch (error) {
    status.textContent = '';
    showProblem(find('batch-problem'), error.message);
  }
  running = false;
  find('start').disabled = false;
  for (const id of ['stop', 'batch-progress']) find(id).hidden = true;
  if (predictions.length === 0) return;
  showCounts(about, predictions);
  const shown = Math.min(predictions.length, SHOWN_ROWS);
  find('table-caption').textContent =
    shown < predictions.length ? `The first ${shown} of ${predictions.length} rows; the download has all` : `${shown} rows`;
  if (address !== null) URL.revokeObjectURL(address);
  address = URL.createObjectURL(toCsv(about, rows, predictions));
  find('download').href = address;
  for (const id of ['download', 'batch-result']) find(id).hidden = false;
}

/** Listen to the panel's fields and buttons. */
export function startMany(client, aboutNow) {
  const drop = find('drop');
  find('start').addEventListener('click', () => classifyAll(client, aboutNow()));
  find('stop').addEventListener('click', () => client.ask('stop'));
  find('file').addEventListener('change', ({ target }) => {
    if (target.files.length > 0) openFile(target.files[0]);
  });
  // Typing into the list takes the place of a file chosen before.
  find('list').addEventListener('input', () => {
    table = null;
    find('file').value = '';
    find('columns').hidden = true;
  });
  for (const name of ['dragenter', 'dragover'])
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add('over');
    });
  drop.addEventListener('dragleave', () => drop.classList.remove('over'));
  drop.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    if (event.dataTransfer.files.length > 0 && !running) openFile(event.dataTransfer.files[0]);
  });
}
