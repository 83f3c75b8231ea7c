// Drive the page in Chromium: node browser.mjs CHROMIUM PLAN.json OUT
// The plan says where the page is served, and holds texts, files and models. What the page showed is written to
// OUT/result.json, beside screenshots and the files that it let download.

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../web/package.json', import.meta.url));
const { chromium } = require('playwright-core');
const [executablePath, planPath, out] = process.argv.slice(2);
const plan = JSON.parse(readFileSync(planPath, 'utf8'));
const TIMEOUT = 120_000;

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const result = { console: [], requestsAfterLoad: [] };

/** A page not yet opened. Errors and warnings are noted, but for those that `expected` matches. */
async function newPage(options = {}, expected = null) {
  const context = await browser.newContext({ acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT);
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !expected?.test(message.text())) result.console.push(message.text());
  });
  page.on('pageerror', (error) => result.console.push(String(error)));
  return { context, page };
}

async function openPage(options, address = plan.address) {
  const { context, page } = await newPage(options);
  await page.goto(address);
  await page.waitForSelector('#classifier:not([hidden])');
  return { context, page };
}

async function classify(page, text, pair = null) {
  await page.evaluate(() => (document.querySelector('#tokens-note').textContent = ''));
  await page.fill('#text', text);
  if (pair !== null) await page.fill('#pair', pair);
  await page.waitForFunction(() => document.querySelector('#tokens-note').textContent.startsWith('By how much'));
  return readAnswer(page);
}

/** What the panel of one text shows. */
function readAnswer(page) {
  return page.evaluate(() => {
    const texts = (selector) => [...document.querySelectorAll(selector)].map((each) => each.innerText);
    return {
      label: document.querySelector('#label').textContent,
      scores: texts('#scores .value'),
      tokens: [...document.querySelectorAll('#tokens li')].map((item) => item.firstChild.textContent),
      shares: [...document.querySelectorAll('#tokens li')].map((item) => item.querySelector('small')?.textContent ?? null),
      facts: document.querySelector('#facts').textContent,
    };
  });
}

/** Wait for the end of a batch, and keep what it lets download as OUT/`name`. */
async function endOfBatch(page, name) {
  await page.waitForSelector('#download:not([hidden])');
  const download = page.waitForEvent('download');
  await page.click('#download');
  await (await download).saveAs(`${out}/${name}`);
  return page.textContent('#batch-status');
}

/** Drop a file onto the panel of many texts, its lines `times` times over. */
async function drop(page, name, lines, times = 1) {
  const dataTransfer = await page.evaluateHandle(
    ([name, content, times]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([content.repeat(times)], name));
      return transfer;
    },
    [name, lines.map((line) => `${line}\r\n`).join(''), times],
  );
  await page.dispatchEvent('#drop', 'dragover', { dataTransfer });
  await page.dispatchEvent('#drop', 'drop', { dataTransfer });
  await page.waitForFunction((name) => document.querySelector('#file-name').textContent.startsWith(`${name}:`), name);
}

/** Open another model from files, and wait until it is there. Without a text, which it would read at once. */
async function openModel(page, files) {
  await page.evaluate(() => {
    document.querySelector('#text').value = '';
    document.querySelector('#about').textContent = '';
  });
  await page.setInputFiles('#model-files', files);
  await page.waitForFunction(() => document.querySelector('#about').textContent !== '');
}

const { context, page } = await openPage({ viewport: { width: 1100, height: 900 } });
result.isolated = await page.evaluate(() => crossOriginIsolated);
result.about = await page.textContent('#about');
// From here on nothing may be fetched: the network is cut, and attempts are noted.
await context.setOffline(true);
const noteRequest = (request) => {
  if (!request.url().startsWith('blob:')) result.requestsAfterLoad.push(request.url());
};
page.on('request', noteRequest);
result.texts = [];
for (const text of plan.texts) {
  await page.fill('#text', '');
  await page.waitForSelector('#answer', { state: 'hidden' });
  result.texts.push(await classify(page, text));
}
await page.waitForFunction(() => document.querySelector('#answer-spoken').textContent !== '');
result.spoken = await page.textContent('#answer-spoken');
await page.screenshot({ path: `${out}/one-text.png`, fullPage: true });

// The other panel, by keyboard alone.
await page.focus('#tab-one');
await page.keyboard.press('ArrowRight');
result.focused = await page.evaluate(() => document.activeElement.id);
await page.setInputFiles('#file', plan.csv);
await page.waitForSelector('#columns:not([hidden])');
result.column = await page.$eval('#column', (select) => select.selectedOptions[0].text);
await page.focus('#start');
await page.keyboard.press('Enter');
result.batchStatus = await endOfBatch(page, 'rows.csv');
await page.screenshot({ path: `${out}/many-texts.png`, fullPage: true });

// A long file: a text of the other panel is answered meanwhile, the batch goes on, and is then stopped. Done inside the page,
// where no message to and fro takes longer than the batch.
await drop(page, 'long.txt', plan.lines, plan.times);
result.progress = await page.evaluate(async (text) => {
  const find = (id) => document.getElementById(id);
  const bar = find('batch-bar');
  const until = async (met) => {
    while (!met()) {
      if (find('stop').hidden) throw new Error(`the batch ended too early: ${find('batch-status').textContent}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return bar.value;
  };
  find('start').click();
  const before = await until(() => bar.value > 0);
  find('tokens-note').textContent = '';
  find('text').value = text;
  find('text').dispatchEvent(new Event('input'));
  const answered = await until(() => find('tokens-note').textContent.startsWith('By how much'));
  const later = await until(() => bar.value > answered);
  find('stop').click();
  return [before, answered, later];
}, plan.texts[0]);
result.stopStatus = await endOfBatch(page, 'stopped.csv');
await page.click('#tab-one');
result.meanwhile = await readAnswer(page);

// Files that are no model: the message says so, and the former model stays.
await page.click('summary');
await page.setInputFiles('#model-files', plan.notModel);
await page.waitForSelector('#problem:not([hidden])');
result.notModel = await page.textContent('#problem');
await page.setInputFiles('#model-files', plan.notModel.slice(0, 1));
await page.waitForFunction(() => document.querySelector('#problem').textContent.includes('missing'));
result.missing = await page.textContent('#problem');
await page.click('#tab-one');
result.afterwards = await classify(page, plan.texts[0]);

// Another model takes the place of one that is at work. Its threads ask for thread.js again.
page.off('request', noteRequest);
await page.click('#tab-many');
await page.click('#start');
await page.waitForFunction(() => document.querySelector('#batch-bar').value > 0);
await openModel(page, plan.models.pair);
result.replacedStatus = await endOfBatch(page, 'replaced.csv');

// Pairs: typed, and of a file that is dropped.
await page.click('#tab-one');
result.pair = await classify(page, ...plan.pairs[0]);
await page.click('#tab-many');
await drop(page, 'pairs.tsv', ['id\tsentence1\tsentence2', ...plan.pairs.map((pair, i) => [i, ...pair].join('\t'))]);
result.columns = await page.$$eval('#column, #pair-column', (selects) => selects.map((select) => select.selectedOptions[0].text));
await page.click('#start');
await endOfBatch(page, 'pairs.csv');
await page.fill('#list', 'no tab in this line');
await page.click('#start');
await page.waitForSelector('#batch-problem:not([hidden])');
result.noTab = await page.textContent('#batch-problem');

// A table that was dropped while the model took single texts: with one of pairs, the second column is there to choose.
await openModel(page, plan.models.multi);
await drop(page, 'pairs.tsv', ['text\tsecond', ...plan.pairs.map((pair) => pair.join('\t'))]);
result.pairColumn = [await page.isVisible('#pair-column')];
await openModel(page, plan.models.pair);
result.pairColumn.push(await page.isVisible('#pair-column'));
await page.click('#start');
await page.waitForSelector('#batch-problem:not([hidden])');
result.sameColumn = await page.textContent('#batch-problem');
await page.selectOption('#pair-column', 'second');
await page.click('#start');
await endOfBatch(page, 'columns.csv');

// Two models at once: the last one chosen counts.
await page.setInputFiles('#model-files', plan.models.pair);

// Several labels of a text; a pasted list to its end.
await openModel(page, plan.models.multi);
await page.click('#tab-one');
result.multi = await classify(page, plan.texts[0]);
await page.click('#tab-many');
await page.fill('#list', plan.texts.join('\n'));
await page.click('#start');
await endOfBatch(page, 'multi.csv');

// A value; a dropped file with a text a line.
await openModel(page, plan.models.regression);
await page.click('#tab-one');
result.regression = await classify(page, plan.texts[0]);
await page.click('#tab-many');
await drop(page, 'texts.txt', plan.texts);
await page.click('#start');
await endOfBatch(page, 'regression.csv');
await context.close();

// A phone: nothing is wider than the screen.
const phone = await openPage({ viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
result.phone = await classify(phone.page, plan.texts[0]);
result.overflow = await phone.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
await phone.page.screenshot({ path: `${out}/phone.png`, fullPage: true });
result.smallTargets = await phone.page.evaluate(() =>
  [...document.querySelectorAll('button')].filter((each) => each.offsetParent !== null && each.offsetHeight < 40).map((each) => each.id));
await phone.context.close();

const dark = await openPage({ viewport: { width: 1100, height: 900 }, colorScheme: 'dark' });
await classify(dark.page, plan.texts[0]);
await dark.page.screenshot({ path: `${out}/dark.png`, fullPage: true });
await dark.context.close();

// A host that sends no headers: the page is not isolated, and uses one thread.
const plain = await openPage({}, plan.plainAddress);
result.plain = {
  isolated: await plain.page.evaluate(() => crossOriginIsolated),
  about: await plain.page.textContent('#about'),
  text: await classify(plain.page, plan.texts[0]),
};
await plain.context.close();

// A browser without SIMD: it is told so, and the model is not fetched in vain.
const old = await newPage();
await old.page.route('**/worker.js', async (route) => {
  const response = await route.fetch();
  await route.fulfill({ response, body: `WebAssembly.validate = () => false;\n${await response.text()}` });
});
result.fetchedInVain = [];
old.page.on('request', (request) => {
  if (/wasm|\/model\//.test(request.url())) result.fetchedInVain.push(request.url());
});
await old.page.goto(plan.address);
await old.page.waitForSelector('#problem:not([hidden])');
result.withoutSimd = await old.page.textContent('#problem');
await old.context.close();

// An engine that cannot be fetched at first: opening a model tries again. This site's thread.js is never to be had, so that
// one thread does the work.
const broken = await newPage({}, /Failed to load resource/);
await broken.context.route('**/*.wasm', (route) => route.abort());
await broken.page.goto(plan.threadlessAddress);
await broken.page.waitForSelector('#problem:not([hidden])');
result.withoutEngine = await broken.page.textContent('#problem');
await broken.context.unroute('**/*.wasm');
await broken.page.click('summary');
await openModel(broken.page, plan.models.regression);
result.retried = await classify(broken.page, plan.texts[0]);
result.retriedAbout = await broken.page.textContent('#about');
await broken.context.close();

await browser.close();
writeFileSync(`${out}/result.json`, JSON.stringify(result));
