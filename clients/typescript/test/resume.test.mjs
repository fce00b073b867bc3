// Connections are cut at random bytes, many times, while numbered events are published. Each event arrives
// exactly once and in order.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Daemon } from './support/daemon.mjs';
import { Proxy, seeded } from './support/proxy.mjs';
import { clientOf, Inbox, take, within } from './support/story.mjs';

// So many that ten cuts are certain: at least 450 KB, and at most 40 KB over one connection.
const EVENTS = 3000;

describe('resume', () => {
  let daemon;
  before(async () => (daemon = await Daemon.start()));
  after(() => daemon?.stop());

  /** Publishes 0…EVENTS-1 in batches of seeded sizes. */
  async function publishAll(channel, random) {
    for (let n = 0; n < EVENTS;) {
      const size = Math.min(EVENTS - n, 1 + Math.floor(random() * 40));
      await daemon.publish(
        channel,
        Array.from({ length: size }, (_, at) => n + at),
      );
      n += size;
    }
  }

  for (const [transport, seed] of [
    ['ws', 1],
    ['ws', 2],
    ['sse', 3],
    ['sse', 4],
    ['poll', 5],
    ['poll', 6],
    ['auto', 7],
    ['auto', 8],
  ]) {
    it(`${transport}: ${EVENTS} events through a proxy that cuts, seed ${seed}`, async () => {
      const channel = `cut/${transport}/${seed}`;
      const proxy = await Proxy.before(daemon.port);
      const client = clientOf({ url: proxy.url, key: daemon.key }, { transport });
      const used = new Set();
      try {
        const events = client.subscribe({ channel, onStatus: (status) => status.state === 'open' && used.add(status.transport) });
        await within(events.ready, 'ready');
        const random = seeded(seed);
        // Cuts fall inside heads and single frames as well as in long runs.
        proxy.budget = () => Math.floor(80 + random() ** 2 * 40_000);
        proxy.cut();
        const [got] = await Promise.all([take(events, EVENTS, 'events'), publishAll(channel, random)]);
        assert.deepEqual(
          got.map((event) => event.data.n),
          Array.from({ length: EVENTS }, (_, n) => n),
        );
        assert.equal(new Set(got.map((event) => event.id)).size, EVENTS);
        assert.equal(events.cursor, got.at(-1).id);
        assert.ok(proxy.cuts >= 10, `cut only ${proxy.cuts} times`);
        if (transport !== 'auto') assert.deepEqual([...used], [transport]);
        // Nothing arrives twice afterwards either.
        proxy.budget = () => Infinity;
        await daemon.publish(channel, ['last']);
        assert.equal((await take(events, 1))[0].data.n, 'last');
      } finally {
        client.close();
        await proxy.close();
      }
    });
  }

  it('a cursor works on all transports and in a new process', async () => {
    const channel = 'portable';
    let cursor;
    const seen = [];
    for (const [at, transport] of ['ws', 'sse', 'poll', 'ws', 'poll', 'sse'].entries()) {
      const client = clientOf(daemon, { transport });
      const events = client.subscribe({ channel, lastEventId: cursor, earliest: true });
      await within(events.ready, 'ready');
      await daemon.publish(channel, [2 * at, 2 * at + 1]);
      // The second of the two is left for the next reader.
      seen.push(...(await take(events, cursor === undefined ? 1 : 2)).map((event) => event.data.n));
      cursor = events.cursor;
      client.close();
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 11 }, (_, n) => n),
    );
  });

  it('auto: falls back to SSE after a refused upgrade, to long-poll after cut streams, without loss', async () => {
    const channel = 'ladder';
    const proxy = await Proxy.before(daemon.port);
    const client = clientOf({ url: proxy.url, key: daemon.key }, { timing: { readyTimeoutMs: 1000 } });
    try {
      const states = new Inbox();
      const events = client.subscribe({ channel, onStatus: states.push });
      const open = (transport) =>
        states.find((status) => status.state === 'open' && status.transport === transport, `open over ${transport}`);
      const numbers = async (count) => (await take(events, count)).map((event) => event.data.n);

      await open('ws');
      await daemon.publish(channel, [1]);
      assert.deepEqual(await numbers(1), [1]);

      proxy.upgrades = 'refuse';
      proxy.isDown = true;
      proxy.cut();
      await daemon.publish(channel, [2]);
      proxy.isDown = false;
      await open('sse');
      await daemon.publish(channel, [3]);
      assert.deepEqual(await numbers(2), [2, 3]);

      proxy.streams = 'hold';
      proxy.cut();
      await daemon.publish(channel, [4]);
      await open('poll');
      await daemon.publish(channel, [5]);
      assert.deepEqual(await numbers(2), [4, 5]);
    } finally {
      client.close();
      await proxy.close();
    }
  });

  it('auto: falls back to long-poll after streams that end early, and tries WebSocket again later', async () => {
    const channel = 'ladder/end';
    const proxy = await Proxy.before(daemon.port);
    proxy.upgrades = 'refuse';
    proxy.streams = 'end';
    const client = clientOf({ url: proxy.url, key: daemon.key }, { timing: { climbAfterMs: 300, pollWaitSeconds: 1 } });
    try {
      const states = new Inbox();
      const events = client.subscribe({ channel, onStatus: states.push });
      await states.find((status) => status.state === 'open' && status.transport === 'poll', 'open over poll');
      await daemon.publish(channel, [1]);
      proxy.upgrades = proxy.streams = undefined;
      await states.find((status) => status.state === 'open' && status.transport === 'ws', 'open over ws');
      await daemon.publish(channel, [2]);
      assert.deepEqual(
        (await take(events, 2)).map((event) => event.data.n),
        [1, 2],
      );
    } finally {
      client.close();
      await proxy.close();
    }
  });

  for (const [signal, end] of [
    ['kill -9', 'kill'],
    ['SIGTERM', 'drain'],
  ]) {
    it(`${signal} of the daemon: subscriptions resume after its restart`, async () => {
      const channel = `restart/${end}`;
      const waits = new Inbox();
      const subscriptions = ['ws', 'sse', 'poll'].map((transport) =>
        clientOf(daemon, { transport }).subscribe({
          channel,
          onStatus: (status) => status.state === 'waiting' && waits.push({ transport, code: status.error.code }),
        }),
      );
      await within(Promise.all(subscriptions.map((one) => one.ready)), 'ready');
      await daemon.publish(channel, [1]);
      for (const one of subscriptions) assert.equal((await take(one, 1))[0].data.n, 1);
      await daemon[end]();
      await daemon.serve();
      await daemon.publish(channel, [2]);
      for (const one of subscriptions) assert.equal((await take(one, 1))[0].data.n, 2);
      // A daemon that is asked to end sends 1012 and `event: closing`.
      const first = (transport) => waits.items.find((one) => one.transport === transport).code;
      assert.deepEqual(['ws', 'sse'].map(first), end === 'kill' ? ['NETWORK', 'NETWORK'] : ['UNAVAILABLE', 'UNAVAILABLE']);
      subscriptions.forEach((one) => one.close());
    });
  }
});
