// Drive the page in Chromium: node browser.mjs CHROMIUM ADDRESS PLAN.json SCREENSHOTS
// The plan holds texts for the panel of one text, rows for the other, and files; prints what the page showed as JSON.

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../web/package.json', import.meta.url));
const { chromium } = require('playwright-core');
const [executablePath, address, planPath, screenshots] = process.argv.slice(2);
const plan = JSON.parse(readFileSync(planPath, 'utf8'));
const TIMEOUT = 120_000;

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const result = { console: [], requestsAfterLoad: [] };

async function openPage(options) {
  const context = await browser.newContext({ acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT);
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) result.console.push(message.text());
  });
  page.on('pageerror', (error) => result.console.push(String(error)));
  await page.goto(address);
  await page.waitForSelector('#classifier:not([hidden])');
  return { context, page };
}

async function classify(page, text) {
  await page.fill('#text', text);
  await page.waitForFunction(() => document.querySelector('#tokens-note').textContent.startsWith('By how much'));
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

const { context, page } = await openPage({ viewport: { width: 1100, height: 900 } });
result.isolated = await page.evaluate(() => crossOriginIsolated);
result.about = await page.textContent('#about');
// From here on nothing may be fetched: the network is cut, and attempts are noted.
await context.setOffline(true);
page.on('request', (request) => {
  if (!request.url().startsWith('blob:')) result.requestsAfterLoad.push(request.url());
});
result.texts = [];
for (const text of plan.texts) {
  await page.fill('#text', '');
  await page.waitForSelector('#answer', { state: 'hidden' });
  await page.evaluate(() => (document.querySelector('#tokens-note').textContent = ''));
  result.texts.push(await classify(page, text));
}
await page.waitForFunction(() => document.querySelector('#answer-spoken').textContent !== '');
result.spoken = await page.textContent('#answer-spoken');
await page.screenshot({ path: `${screenshots}/one-text.png`, fullPage: true });

// The other panel, by keyboard alone.
await page.focus('#tab-one');
await page.keyboard.press('ArrowRight');
result.focused = await page.evaluate(() => document.activeElement.id);
await page.setInputFiles('#file', plan.csv);
await page.waitForSelector('#columns:not([hidden])');
result.column = await page.$eval('#column', (select) => select.selectedOptions[0].text);
await page.focus('#start');
await page.keyboard.press('Enter');
const download = page.waitForEvent('download');
await page.waitForSelector('#download:not([hidden])');
result.batchStatus = await page.textContent('#batch-status');
await page.click('#download');
await (await download).saveAs(`${screenshots}/predictions.csv`);
await page.screenshot({ path: `${screenshots}/many-texts.png`, fullPage: true });

// Files that are no model: the message says so, and the former model stays.
await page.click('summary');
await page.setInputFiles('#model-files', plan.notModel);
await page.waitForSelector('#problem:not([hidden])');
result.notModel = await page.textContent('#problem');
await page.setInputFiles('#model-files', plan.notModel.slice(0, 1));
await page.waitForFunction(() => document.querySelector('#problem').textContent.includes('missing'));
result.missing = await page.textContent('#problem');
await page.click('#tab-one');
await page.evaluate(() => (document.querySelector('#tokens-note').textContent = ''));
result.afterwards = await classify(page, plan.texts[0]);
await context.close();

// A phone: nothing is wider than the screen.
const phone = await openPage({ viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
result.phone = await classify(phone.page, plan.texts[0]);
result.overflow = await phone.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
await phone.page.screenshot({ path: `${screenshots}/phone.png`, fullPage: true });
result.smallTargets = await phone.page.evaluate(() =>
  [...document.querySelectorAll('button')].filter((each) => each.offsetParent !== null && each.offsetHeight < 40).map((each) => each.id));
await phone.context.close();

const dark = await openPage({ viewport: { width: 1100, height: 900 }, colorScheme: 'dark' });
await classify(dark.page, plan.texts[0]);
await dark.page.screenshot({ path: `${screenshots}/dark.png`, fullPage: true });
await dark.context.close();

// A browser without SIMD.
const old = await browser.newContext();
const oldPage = await old.newPage();
await oldPage.route('**/worker.js', async (route) => {
  const response = await route.fetch();
  await route.fulfill({ response, body: `WebAssembly.validate = () => false;\n${await response.text()}` });
});
await oldPage.goto(address);
await oldPage.waitForSelector('#problem:not([hidden])', { timeout: TIMEOUT });
result.withoutSimd = await oldPage.textContent('#problem');
await old.close();

await browser.close();
writeFileSync(`${screenshots}/result.json`, JSON.stringify(result));
