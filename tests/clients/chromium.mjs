// Tests Chromium's own EventSource and WebSocket from three kinds of pages: a page of the same origin with a
// reconnect ticket, a page of another allowed origin with a token in the query, and a page of an origin that
// is not allowed.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { direct, key, proxied, publish, stage, stageUrl, tell } from './story.mjs';

const channel = 'clients/chromium';
const stagePort = new URL(stageUrl).port;
const profile = mkdtempSync(join(tmpdir(), 'nervewire-chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP evil.test 127.0.0.1'],
});

/** Opens a page and defines the helpers below in its `window`. */
async function open(url) {
  const page = await browser.newPage();
  await page.goto(url);
  await page.evaluate(() => {
    window.heard = [];
    window.listen = (url) => {
      window.source = new EventSource(url);
      source.onmessage = (message) => heard.push({ id: message.lastEventId, n: JSON.parse(message.data).data.n });
      window.readies = 0;
      source.addEventListener('ready', () => { window.readies += 1; });
    };
  });
  return page;
}

const WAIT = { timeout: 20_000, polling: 50 };

async function ready(page, times) {
  await page.waitForFunction((times) => window.readies >= times, times, WAIT);
}

/** Waits until the page has received as many events as expected, and compares their ids and values. */
async function heard(page, ids, values) {
  await page.waitForFunction((count) => heard.length >= count, ids.length, WAIT);
  assert.deepEqual(await page.evaluate(() => heard.splice(0)), ids.map((id, i) => ({ id, n: values[i] })));
}

await tell('chromium', {
  'same origin, with a reconnect ticket: EventSource reconnects after a cut and misses no event': async () => {
    const page = await open(`${proxied}/health`);
    await page.evaluate(async ([key, channel]) => {
      const answer = await fetch('/api/v1/tickets', {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: '{"reconnect":true}',
      });
      const { data } = await answer.json();
      listen(`/api/v1/sse?channel=${encodeURIComponent(channel)}&ticket=${encodeURIComponent(data.ticket)}`);
    }, [key, channel]);
    await ready(page, 1);
    await heard(page, await publish(channel, ['a', 'b']), ['a', 'b']);
    await stage('cut');
    const missed = await publish(channel, ['c', 'd']);
    await stage('release');
    await heard(page, missed, ['c', 'd']);
    await ready(page, 2);
    await heard(page, await publish(channel, ['e']), ['e']);
    await page.close();
  },

  'from localhost, with a token in the query: EventSource reconnects after kill -9, and the page publishes': async () => {
    const page = await open(`http://localhost:${stagePort}/`);
    await page.evaluate(([base, key, channel]) => {
      listen(`${base}/api/v1/sse?channel=${encodeURIComponent(channel)}&token=${encodeURIComponent(key)}`);
    }, [proxied, key, channel]);
    await ready(page, 1);
    const ids = await page.evaluate(async ([base, key, channel]) => {
      const answer = await fetch(`${base}/api/v1/events`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: JSON.stringify({ type: 'custom', channel, data: { n: 'from the page' } }),
      });
      return (await answer.json()).data.ids;
    }, [direct, key, channel]);
    await heard(page, ids, ['from the page']);
    await stage('cut');
    const missed = await publish(channel, ['c', 'd']);
    await stage('restart');
    missed.push(...(await publish(channel, ['e'])));
    await stage('release');
    await heard(page, missed, ['c', 'd', 'e']);
    await ready(page, 2);
    await heard(page, await publish(channel, ['f']), ['f']);
    await page.close();
  },

  'from localhost, a WebSocket with a token in the query': async () => {
    const page = await open(`http://localhost:${stagePort}/`);
    const frames = page.evaluate(([base, key, channel]) => new Promise((done, failed) => {
      const types = [];
      const query = `channel=${encodeURIComponent(channel)}&token=${encodeURIComponent(key)}`;
      const socket = new WebSocket(`${base.replace('http', 'ws')}/api/v1/ws?${query}`);
      socket.onerror = () => failed(new Error('the WebSocket failed'));
      socket.onopen = () => socket.send(JSON.stringify({ type: 'ping', timestamp: new Date().toISOString() }));
      socket.onmessage = (message) => {
        types.push(JSON.parse(message.data).type);
        if (types.length === 2) socket.close(1000);
      };
      socket.onclose = (close) => done({ types, code: close.code, clean: close.wasClean });
      setTimeout(() => failed(new Error(`only ${types}`)), 20_000);
    }), [direct, key, channel]);
    assert.deepEqual(await frames, { types: ['ready', 'pong'], code: 1000, clean: true });
    await page.close();
  },

  'from an origin that is not allowed, fetch, EventSource and WebSocket are all refused': async () => {
    const page = await open(`http://evil.test:${stagePort}/`);
    const got = await page.evaluate(async ([base, key]) => {
      const answer = await fetch(`${base}/api/v1/events?token=${key}`).then(() => 'readable', () => 'refused');
      const source = await new Promise((done) => {
        const source = new EventSource(`${base}/api/v1/sse?token=${key}`);
        source.onopen = () => done('open');
        source.onerror = () => done(source.readyState === EventSource.CLOSED ? 'closed' : 'retrying');
      });
      const socket = await new Promise((done) => {
        const socket = new WebSocket(`${base.replace('http', 'ws')}/api/v1/ws?token=${key}`);
        socket.onopen = () => done('open');
        socket.onclose = () => done('refused');
      });
      return { answer, source, socket };
    }, [direct, key]);
    assert.deepEqual(got, { answer: 'refused', source: 'closed', socket: 'refused' });
    await page.close();
  },
}, async () => {
  await browser.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 3 });
});
