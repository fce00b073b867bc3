// The client in real headless Chromium, from a page of another origin: resume over a proxy that cuts,
// fallback, React hooks.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Browser } from './support/chromium.mjs';
import { Daemon } from './support/daemon.mjs';
import { Proxy, seeded } from './support/proxy.mjs';
import { within } from './support/story.mjs';

const EVENTS = 400;

describe('browser', () => {
  let daemon, browser, proxy;
  before(async () => {
    daemon = await Daemon.start();
    browser = await Browser.start(() => daemon.token('alice'));
  });
  after(async () => {
    await browser?.close();
    await daemon?.stop();
  });
  const withProxy = (story) => async () => {
    proxy = await Proxy.before(daemon.port);
    const page = await browser.page();
    try {
      await story(page);
      assert.deepEqual(page.errors, []);
      for (const path of proxy.paths) assert.ok(!/[?&]token=|eyJ/.test(path), `a token in ${path}`);
    } finally {
      await page.close();
      await proxy.close();
    }
  };

  for (const [transport, seed] of [
    ['ws', 11],
    ['sse', 12],
    ['poll', 13],
    ['auto', 14],
  ]) {
    it(
      `${transport}: ${EVENTS} events through a proxy that cuts`,
      withProxy(async (page) => {
        const channel = `browser/${transport}`;
        await page.evaluate(([url, transport, channel]) => follow(url, transport, { channel }), [proxy.url, transport, channel]);
        const random = seeded(seed);
        proxy.budget = () => Math.floor(400 + random() ** 2 * 20_000);
        proxy.cut();
        for (let n = 0; n < EVENTS; n += 10)
          await daemon.publish(
            channel,
            Array.from({ length: 10 }, (_, at) => n + at),
          );
        await page.until((count) => got.length >= count, EVENTS);
        proxy.budget = () => Infinity;
        const [last] = await daemon.publish(channel, ['last']);
        await page.until(() => got.at(-1) === 'last');
        assert.deepEqual(await page.evaluate(() => got), [...Array.from({ length: EVENTS }, (_, n) => n), 'last']);
        assert.equal(await page.evaluate(() => subscription.cursor), last);
        assert.ok(proxy.cuts >= 5, `cut only ${proxy.cuts} times`);
        if (transport === 'ws')
          assert.ok(
            proxy.paths.some((path) => path.includes('/ws?') && path.includes('ticket=nwt1_') && path.includes('last_event_id=')),
          );
        if (transport !== 'auto') assert.deepEqual(await page.evaluate(() => [...used]), [transport]);
      }),
    );
  }

  it(
    'auto: a refused upgrade leads to SSE, a held back stream to long-poll',
    withProxy(async (page) => {
      const channel = 'browser/ladder';
      await page.evaluate(([url, channel]) => follow(url, 'auto', { channel }), [proxy.url, channel]);
      await daemon.publish(channel, [1]);
      proxy.upgrades = 'refuse';
      proxy.cut();
      await daemon.publish(channel, [2]);
      await page.until(() => used.has('sse'));
      proxy.streams = 'hold';
      proxy.cut();
      await daemon.publish(channel, [3]);
      await page.until(() => used.has('poll'));
      await daemon.publish(channel, [4]);
      await page.until(() => got.length >= 4);
      assert.deepEqual(await page.evaluate(() => [...got, ...used]), [1, 2, 3, 4, 'ws', 'sse', 'poll']);
    }),
  );

  it(
    'React in StrictMode: useNervewire and useStream, through a cut, and nothing left after unmount',
    withProxy(async (page) => {
      const connections = async (count) => {
        // Repeats until the closed connections are gone.
        const settled = async () => {
          while ((await daemon.api('GET', '/connections')).length !== count);
        };
        await within(settled(), `${count} connections`);
      };
      const chunk = (request_id, index, text, is_final) =>
        daemon.api('POST', '/events', { type: 'stream_chunk', request_id, index, chunk: text, is_final });
      const shows = (id, text) => page.until(([id, text]) => document.getElementById(id)?.textContent === text, [id, text]);

      await chunk('r-1', 0, 'Your train ', false);
      await page.evaluate(([url]) => mount(url, 'react', 'r-1'), [proxy.url]);
      await shows('status', 'open');
      await shows('text', 'Your train ');
      await connections(2); // StrictMode mounts twice; the connections of the first mount are closed
      await daemon.publish('react', [1, 2, 3]);
      await shows('events', '1 2 3');

      proxy.cut();
      await daemon.publish('react', [4, 5, 6, 7]);
      await chunk('r-1', 1, 'leaves ', false);
      await shows('events', '3 4 5 6 7'); // the latest five
      await chunk('r-1', 2, 'at 9.', true);
      await shows('text', 'Your train leaves at 9.');
      await shows('done', 'true');
      await connections(1); // a finished stream needs none
      assert.deepEqual(await page.evaluate(() => heard), [1, 2, 3, 4, 5, 6, 7]);

      await page.click('#clear');
      await shows('events', '');
      await page.evaluate(() => setProps({ channel: 'react/other', stream: 'r-2' }));
      await shows('text', '');
      await connections(2);
      await page.until(() => document.getElementById('status').textContent === 'open');
      await daemon.publish('react', ['not mine any more']);
      await daemon.publish('react/other', [8]);
      await shows('events', '8');
      await daemon.api('POST', '/events', { type: 'error', code: 'TOOL_FAILED', message: 'm', request_id: 'r-2' });
      await shows('error', 'TOOL_FAILED');

      await page.evaluate(() => setProps({ isThere: false }));
      await connections(0);
      await page.evaluate(() => setProps({ isThere: true }));
      // The stream ended long ago: it is read again and not followed any longer.
      await shows('error', 'TOOL_FAILED');
      await connections(1);
      await page.evaluate(() => unmount());
      await connections(0);
    }),
  );
});
