// Visit the page twice in a browser of its own, as benchmarks/page.py asks; prints what was measured as JSON.
//
// node page.mjs JOB, JOB being JSON: chromium (program), playwright (folder of playwright-core), address, texts, pictures
// (folder, or null).

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const job = JSON.parse(process.argv[2]);
const { chromium } = await import(pathToFileURL(join(job.playwright, 'index.mjs')));
const browser = await chromium.launch({ executablePath: job.chromium, args: ['--no-sandbox'] });
const context = await browser.newContext({ viewport: { width: 1100, height: 900 } });

async function answer(page, text) {
  await page.fill('#text', text);
  await page.waitForSelector('#answer:not([hidden])');
}

async function explained(page, text) {
  await answer(page, text);
  await page.waitForFunction(() => document.querySelector('#tokens-note').textContent.startsWith('By how much'));
}

// Seconds since navigation began, and bytes that came over the network, headers included, workers' requests too.
async function visit() {
  const page = await context.newPage();
  let bytes = 0;
  page.on('requestfinished', async (request) => {
    const { responseBodySize, responseHeadersSize } = await request.sizes();
    bytes += responseBodySize + responseHeadersSize;
  });
  const seconds = () => page.evaluate(() => performance.now() / 1000);
  await page.goto(job.address);
  await page.waitForSelector('#classifier:not([hidden])');
  const ready = await seconds();
  await answer(page, job.texts[0]);
  const answered = await seconds();
  await page.waitForTimeout(500);
  await page.close();
  return { bytes, ready, answered };
}

async function picture(name, options, texts) {
  const own = await browser.newContext(options);
  const page = await own.newPage();
  await page.goto(job.address);
  await page.waitForSelector('#classifier:not([hidden])');
  if (typeof texts === 'string') await explained(page, texts);
  else {
    await page.click('#tab-many');
    await page.fill('#list', texts.join('\n'));
    await page.click('#start');
    await page.waitForSelector('#download:not([hidden])');
  }
  await page.screenshot({ path: join(job.pictures, `web-${name}.png`), fullPage: true });
  await own.close();
}

const visits = [await visit(), await visit()];
if (job.pictures) {
  const wide = { viewport: { width: 1100, height: 900 } };
  await picture('one-text', wide, job.texts[0]);
  await picture('many-texts', wide, job.texts);
  await picture('phone', { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true }, job.texts[1]);
  await picture('dark', { ...wide, colorScheme: 'dark' }, job.texts[1]);
}
console.log(JSON.stringify({ browser: browser.version(), visits }));
await browser.close();
