// Tests the page at /docs in Chromium. Under its content security policy it shows both documents, and it
// sends requests only to the daemon.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { direct, key, tell } from './story.mjs';

const profile = mkdtempSync(join(tmpdir(), 'nervewire-docs-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
const WAIT = { timeout: 20_000 };
const page = await browser.newPage();
const asked = [];
const wrong = [];
page.on('request', (request) => asked.push(request.url()));
page.on('console', (message) => { if (message.type() === 'error') wrong.push(message.text()); });
page.on('pageerror', (error) => wrong.push(error.message));
await page.addInitScript(() => {
  window.violations = [];
  document.addEventListener('securitypolicyviolation', (event) => {
    violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
  });
});
await page.goto(`${direct}/docs`);
const openapi = await (await fetch(`${direct}/api-docs/openapi.json`)).json();
const asyncapi = await (await fetch(`${direct}/api-docs/asyncapi.json`)).json();

await tell('docs', {
  'every request of the document is listed': async () => {
    await page.waitForSelector('.opblock', WAIT);
    const wanted = Object.values(openapi.paths).flatMap((item) => Object.keys(item)).length;
    assert.equal(await page.locator('.opblock').count(), wanted);
  },

  'a request shows its parameters, and can be sent with a key': async () => {
    await page.click('.authorize');
    await page.locator('.auth-container input').first().fill(key);
    await page.locator('.auth-container button[type=submit]').first().click();
    await page.click('.btn-done');
    const agents = page.locator('[id$="listAgents"]');
    await agents.locator('.opblock-summary-control').click();
    await agents.locator('.parameters td', { hasText: 'Maximum of rows' }).waitFor(WAIT);
    await agents.locator('.try-out__btn').click();
    await agents.locator('.execute').click();
    const answer = agents.locator('.live-responses-table .response');
    await answer.waitFor(WAIT);
    assert.equal((await answer.locator('.response-col_status').innerText()).trim(), '200');
  },

  'every channel of the streams is shown with every message': async () => {
    await page.waitForSelector('#streams h2', WAIT);
    const channels = Object.values(asyncapi.channels);
    assert.deepEqual(await page.locator('#streams h2').allInnerTexts(), channels.map((channel) => channel.address));
    const messages = channels.reduce((sum, channel) => sum + Object.keys(channel.messages).length, 0);
    assert.equal(await page.locator('#streams details').count(), messages);
    assert.equal(await page.locator('.wrong').count(), 0);
    assert.ok(!(await page.locator('#streams').textContent()).includes('`'), 'code is shown as code');
    assert.ok((await page.locator('#streams code').count()) > 0);
  },

  'a link to the streams scrolls to them, and the page fits a narrow window': async () => {
    const narrow = await browser.newPage();
    await narrow.setViewportSize({ width: 400, height: 800 });
    await narrow.goto(`${direct}/docs#streams`);
    const top = () => document.getElementById('streams').getBoundingClientRect().top;
    await narrow.waitForFunction(() => scrollY > 0, null, WAIT);
    const at = await narrow.evaluate(top);
    assert.ok(at >= 0 && at < 100, `at ${at}`);
    await narrow.evaluate(() => document.querySelectorAll('#streams details').forEach((one) => { one.open = true; }));
    assert.equal(await narrow.evaluate(() => document.documentElement.scrollWidth), 400);
    await narrow.close();
  },

  'nothing violated the policy, and every request went to the origin': async () => {
    assert.deepEqual(await page.evaluate(() => violations), []);
    assert.deepEqual(wrong, []);
    const others = asked.filter((url) => !url.startsWith(`${direct}/`) && !url.startsWith('data:'));
    assert.deepEqual(others, []);
    assert.ok(asked.length >= 7, `${asked}`);
  },

  'the policy blocks a script that a document could inject': async () => {
    const ran = await page.evaluate(() => new Promise((done) => {
      const script = document.createElement('script');
      script.textContent = 'window.smuggled = true';
      document.body.append(script);
      setTimeout(() => done([window.smuggled ?? false, violations.length]), 200);
    }));
    assert.deepEqual(ran, [false, 1]);
  },
}, async () => {
  await browser.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 3 });
});
