// Real headless Chromium, and the web server of its pages. CHROMIUM names the binary; otherwise it is
// searched in the PATH.
import { createServer } from 'node:http';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { LIMIT_MS } from './story.mjs';

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const WAIT = { timeout: LIMIT_MS, polling: 20 };

export class Browser {
  /** `token` returns the token that the pages' own server gives them. */
  static async start(token) {
    const browser = new Browser();
    const { outputFiles } = await build({
      entryPoints: [fileURLToPath(new URL('../browser/page.mjs', import.meta.url))],
      bundle: true,
      write: false,
      format: 'esm',
      platform: 'browser',
      target: 'es2022',
      define: { 'process.env.NODE_ENV': '"development"' },
    });
    browser.server = createServer(async (request, response) => {
      if (request.url === '/token') response.end(await token());
      else if (request.url === '/page.js') response.setHeader('content-type', 'text/javascript').end(outputFiles[0].text);
      else
        response
          .setHeader('content-type', 'text/html')
          .end('<!doctype html><title>page</title><body><script type="module" src="/page.js"></script>');
    });
    browser.server.listen(0, 'localhost');
    await once(browser.server, 'listening');
    browser.profile = mkdtempSync(join(tmpdir(), 'nervewire-ts-chromium-'));
    browser.context = await chromium.launchPersistentContext(browser.profile, {
      executablePath: find(),
      headless: true,
      args: ARGS,
    });
    return browser;
  }

  /** Opens a page; `hash` goes behind its address. */
  async page(hash = '') {
    const page = await this.context.newPage();
    page.errors = [];
    page.on('pageerror', (error) => page.errors.push(error.message));
    await page.goto(`http://localhost:${this.server.address().port}/${hash}`, { waitUntil: 'load' });
    /** Waits until the element with this id shows this text. */
    page.shows = (id, text) =>
      page
        .until(([id, text]) => document.getElementById(id)?.textContent === text, [id, text])
        .catch(async (failure) => {
          const shown = await page.evaluate((id) => document.getElementById(id)?.textContent, id);
          throw new Error(`${id} shows ${shown}, not ${text}`, { cause: failure });
        });
    /** Waits until a function of the page returns a truthy value, and returns it. */
    page.until = async (fits, argument) => (await page.waitForFunction(fits, argument, WAIT)).jsonValue();
    return page;
  }

  async close() {
    await this.context.close();
    this.server.closeAllConnections();
    this.server.close();
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 3 });
  }
}

function find() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
    const path = process.env.PATH.split(delimiter)
      .map((folder) => join(folder, name))
      .find(existsSync);
    if (path) return path;
  }
  throw new Error('Chromium is neither in CHROMIUM nor in the PATH');
}
