// The client in real headless Chromium, from a page of another origin: resume over a proxy that cuts,
// fallback, React hooks.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Browser } from './support/chromium.mjs';
import { Daemon } from './support/daemon.mjs';
import { FakeStreams } from './support/fake-streams.mjs';
import { Producer } from './support/producer.mjs';
import { Proxy, seeded } from './support/proxy.mjs';
import { clientOf, until, within } from './support/story.mjs';

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
      const stream = await Producer.open(daemon, 'r-1');
      await stream.append('Your train ');
      await page.evaluate(([url]) => mount(url, 'react', 'r-1'), [proxy.url]);
      await page.shows('status', 'open');
      await page.shows('text', 'Your train ');
      await connections(2); // StrictMode mounts twice; the connections of the first mount are closed
      await daemon.publish('react', [1, 2, 3]);
      await page.shows('events', '1 2 3');

      proxy.cut();
      await daemon.publish('react', [4, 5, 6, 7]);
      await stream.append('leaves ');
      await page.shows('events', '3 4 5 6 7'); // the latest five
      await stream.append('at 9.');
      await stream.say('finish', { finish_reason: 'stop', usage: { n: 3 } });
      await page.shows('text', 'Your train leaves at 9.');
      await page.shows('state', 'completed');
      await page.shows('end', 'stop {"n":3}');
      await connections(1); // a finished stream needs none
      assert.deepEqual(await page.evaluate(() => heard), [1, 2, 3, 4, 5, 6, 7]);

      await page.click('#clear');
      await page.shows('events', '');
      await page.evaluate(() => setProps({ channel: 'react/other', stream: 'r-2' }));
      await page.shows('text', '');
      await connections(2);
      await page.until(() => document.getElementById('status').textContent === 'open');
      await daemon.publish('react', ['not mine any more']);
      await daemon.publish('react/other', [8]);
      await page.shows('events', '8');
      const failing = await Producer.open(daemon, 'r-2');
      await failing.append('hm');
      await failing.say('fail', { code: 'TOOL_FAILED', message: 'm' });
      await page.shows('error', 'TOOL_FAILED: m');
      await page.shows('text', 'hm');
      await page.shows('state', 'failed');

      await page.evaluate(() => setProps({ isThere: false }));
      await connections(0);
      await page.evaluate(() => setProps({ isThere: true }));
      // The stream has ended: it is read again and not followed any longer.
      await page.shows('error', 'TOOL_FAILED: m');
      await page.shows('text', 'hm');
      await connections(1);
      await page.evaluate(() => unmount());
      await connections(0);
    }),
  );
});

describe('useStream', () => {
  let fake, browser, page;
  before(async () => {
    fake = await FakeStreams.start();
    browser = await Browser.start(() => 'token');
    page = await browser.page();
  });
  after(async () => {
    await browser?.close();
    await fake?.close();
  });

  it('shows text, parts, state and end, and never repeats text', async () => {
    await page.evaluate(([url]) => mount(url, undefined, null), [fake.url]);
    await page.shows('state', 'idle');
    assert.equal(fake.requests.length, 0);
    await page.click('#stop'); // nothing to cancel
    fake.open('r1');
    fake.append('r1', 'Your ');
    await page.evaluate(() => setProps({ stream: 'r1' }));
    await page.shows('text', 'Your ');
    await page.shows('state', 'open');
    await until(() => fake.readers.size === 1, 'one reader');
    fake.append('r1', 'hm', { type: 'reasoning', id: 'think' });
    fake.append('r1', ', ', { type: 'reasoning', id: 'think' });
    for (let n = 0; n < 20; n += 1) {
      fake.append('r1', `${n} `);
      if (n % 7 === 3) {
        fake.cut();
        await until(() => fake.readers.size === 1, 'the reader is back');
      }
    }
    fake.append('r1', 'yes', { type: 'reasoning', id: 'think' });
    await page.shows('parts', 'think: hm, yes');
    fake.end('r1', 'completed', { reason: 'stop', usage: { n: 1 } });
    await page.shows('state', 'completed');
    await page.shows('end', 'stop {"n":1}');
    const text = `Your ${Array.from({ length: 20 }, (_, n) => `${n} `).join('')}`;
    await page.shows('text', text);
    const texts = await page.evaluate(() => window.texts);
    // StrictMode's second mount reads again from the start.
    const begun = texts.slice(texts.lastIndexOf(''));
    begun.forEach((one, at) => assert.ok(one.startsWith(begun[at - 1] ?? '') && text.startsWith(one), one));
    await until(() => fake.readers.size === 0, 'no reader');
    assert.deepEqual(page.errors, []);
  });

  it('another id begins anew; unmounting closes', async () => {
    fake.open('r2');
    fake.append('r2', 'two');
    await page.evaluate(() => setProps({ stream: 'r2' }));
    await page.shows('text', 'two');
    await page.shows('parts', '');
    fake.open('r3');
    await page.evaluate(() => setProps({ stream: 'r3' }));
    await page.shows('text', '');
    await until(() => [...fake.readers].every(({ id }) => id === 'r3'), 'the reader of r2 is gone');
    fake.append('r3', 'three');
    await page.shows('text', 'three');
    await page.evaluate(() => setProps({ isThere: false }));
    await until(() => fake.readers.size === 0, 'no reader');
    await page.evaluate(() => setProps({ isThere: true }));
    await page.shows('text', 'three');
    await page.evaluate(() => setProps({ stream: null }));
    await page.shows('state', 'idle');
    await page.shows('text', '');
    await until(() => fake.readers.size === 0, 'no reader');
  });

  it('cancel, and a cancel that comes too late', async () => {
    fake.open('r4');
    fake.append('r4', 'so far');
    await page.evaluate(() => setProps({ stream: 'r4' }));
    await page.shows('text', 'so far');
    await page.click('#stop');
    await page.shows('state', 'cancelled');
    await page.shows('error', 'CANCELLED: the user pressed stop');
    await page.shows('text', 'so far');
    fake.fault = ({ path }) => (path.endsWith('/cancel') ? { status: 409, code: 'STREAM_ENDED' } : undefined);
    const before = fake.requests.length;
    await page.click('#stop');
    await until(() => fake.requests.length > before, 'the request');
    fake.fault = () => undefined;
    assert.deepEqual(page.errors, []);
  });

  it('a stream that cannot be read', async () => {
    fake.fault = () => ({ status: 403, code: 'FORBIDDEN', message: 'needs subscribe' });
    await page.evaluate(() => setProps({ stream: 'r5' }));
    await page.shows('state', 'unreadable');
    await page.shows('error', 'FORBIDDEN: needs subscribe');
    fake.fault = () => undefined;
    fake.open('r5');
    fake.append('r5', 'now');
    await page.evaluate(() => setProps({ isThere: false }));
    await page.evaluate(() => setProps({ isThere: true }));
    await page.shows('text', 'now');
    await page.shows('error', '');
  });
});

describe('an answer in a browser', () => {
  let daemon, browser, producers;
  before(async () => {
    daemon = await Daemon.start();
    browser = await Browser.start(() => daemon.token('alice'));
    producers = clientOf(daemon);
  });
  after(async () => {
    producers?.close();
    await browser?.close();
    await daemon?.stop();
  });

  it('survives a closed tab and three refreshes, and is stopped from another page', async () => {
    const writer = await producers.openStream({ userId: 'alice' });
    const hash = `#${encodeURIComponent(`${daemon.url} ${writer.requestId}`)}`;
    let text = '';
    const append = async (count) => {
      for (let n = 0; n < count; n += 1) {
        const token = `${text.length}😀 `;
        text += token;
        await writer.append(token);
      }
    };

    const first = await browser.page(hash);
    await append(50);
    await first.shows('text', text);
    await first.close();
    await append(50);

    const second = await browser.page(hash);
    await second.shows('text', text);
    for (let refresh = 0; refresh < 3; refresh += 1) {
      const appending = append(100);
      await second.reload({ waitUntil: 'load' });
      await appending;
      await second.shows('text', text);
      await second.shows('state', 'open');
    }
    const texts = await second.evaluate(() => window.texts);
    texts.forEach((one) => assert.ok(text.startsWith(one), one));

    const stopped = new Promise((done) => writer.signal.addEventListener('abort', done));
    await second.click('#stop');
    await within(stopped, 'the producer sees the cancel');
    assert.equal(writer.signal.reason.code, 'STREAM_CANCELLED');
    await assert.rejects(writer.append('never shown'), { code: 'STREAM_CANCELLED' });
    await second.shows('state', 'cancelled');
    await second.shows('error', 'CANCELLED: the user pressed stop');
    await second.shows('text', text);

    // A page that opens it only now sees the same.
    const third = await browser.page(hash);
    await third.shows('state', 'cancelled');
    await third.shows('text', text);
    assert.deepEqual([second.errors, third.errors], [[], []]);
  });

  it('is stopped before its first token', async () => {
    const writer = await producers.openStream({ userId: 'alice' });
    const page = await browser.page(`#${encodeURIComponent(`${daemon.url} ${writer.requestId}`)}`);
    await page.shows('state', 'open');
    const stopped = new Promise((done) => writer.signal.addEventListener('abort', done));
    await page.click('#stop');
    await page.shows('state', 'cancelled');
    await within(stopped, 'the producer sees the cancel');
    assert.deepEqual(page.errors, []);
  });
});
