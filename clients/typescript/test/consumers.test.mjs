// How events reach their consumer: iteration, callbacks, slow consumers, gaps, filters, aborting.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Nervewire } from 'nervewire';
import { Daemon } from './support/daemon.mjs';
import { clientOf, Inbox, take, within } from './support/story.mjs';

describe('consumers', () => {
  let daemon;
  before(async () => (daemon = await Daemon.start({ NERVEWIRE_WRITE_TIMEOUT_MS: '1000' })));
  after(() => daemon?.stop());

  for (const transport of ['ws', 'sse', 'poll']) {
    it(`${transport}: the queue of a slow consumer is bounded and loses nothing`, async () => {
      const channel = `slow/${transport}`;
      const total = 600;
      for (let n = 0; n < total; n += 100)
        await daemon.publish(
          channel,
          Array.from({ length: 100 }, (_, at) => n + at),
        );
      const states = new Inbox();
      const client = clientOf(daemon, { transport });
      let [opened, came, taken, most] = [0, 0, 0, 0];
      const onStatus = (status) => (states.push(status), (opened += status.state === 'open' ? 1 : 0));
      const onEvent = () => (most = Math.max(most, (came += 1) - taken));
      const events = client.subscribe({ channel, earliest: true, buffer: 50, onStatus, onEvent });
      const iterator = events[Symbol.asyncIterator]();
      await within(events.ready, 'ready');
      if (transport === 'ws') await states.find((status) => status.state === 'behind', 'behind');
      const first = events.cursor;
      for (let n = 0; n < total; n += 1, taken += 1) assert.equal((await take(iterator, 1))[0].data.n, n);
      assert.ok(most >= 40 && most <= 51, `${most} were kept`); // one is being handled by the consumer
      assert.notEqual(first, events.cursor);
      if (transport === 'ws') assert.ok(opened >= total / 50, `opened ${opened} times: never more than 50 at once`);
      else assert.equal(opened, 1);
      client.close();
    });

    it(`${transport}: an unknown cursor is a gap for callbacks and for iteration over items`, async () => {
      const client = clientOf(daemon, { transport });
      const gaps = new Inbox();
      const items = client.subscribe({ channel: 'gap', lastEventId: 'from-another-store', control: true, onGap: gaps.push });
      const [gap, caughtUp] = await take(items, 2);
      assert.equal(gap.kind, 'gap');
      assert.equal(gap.gap.reason, 'unknown_cursor');
      assert.equal(gap.gap.after, 'from-another-store');
      assert.equal(gap.cursor, gap.gap.resumes_at);
      assert.equal(caughtUp.kind, 'caught_up');
      assert.deepEqual(gaps.items, [gap.gap]);
      await daemon.publish('gap', ['next']);
      const [{ event }] = await take(items, 1);
      assert.equal(event.data.n, 'next');
      assert.equal(items.cursor, event.id);
      client.close();
    });

    it(`${transport}: events after close(), or queued before it, are not delivered`, async () => {
      const channel = `closed/${transport}`;
      await daemon.publish(channel, [1, 2, 3]);
      const got = [];
      const client = clientOf(daemon, { transport });
      const closed = new Inbox();
      const events = client.subscribe({
        channel,
        earliest: true,
        onEvent: (event) => (got.push(event.data.n), events.close()),
        onStatus: closed.push,
      });
      await closed.find((status) => status.state === 'closed', 'closed');
      await within(
        (async () => {
          while ((await daemon.api('GET', '/connections')).length > 0);
        })(),
        'no connection',
      );
      assert.deepEqual(got, [1]);
      const rest = clientOf(daemon, { transport }).subscribe({ channel, lastEventId: events.cursor });
      assert.deepEqual(
        (await take(rest, 2)).map((event) => event.data.n),
        [2, 3],
      );
      rest.close();
    });

    it(`${transport}: callbacks`, async () => {
      const got = new Inbox();
      const errors = [];
      const client = clientOf(daemon, { transport });
      const caughtUp = new Inbox();
      const events = client.subscribe({
        channel: 'callbacks',
        earliest: true,
        onCaughtUp: caughtUp.push,
        onError: (error) => errors.push(error.message),
        onEvent: (event) => {
          got.push(event.data.n);
          if (event.data.n === 'throw') throw new Error('mine');
        },
      });
      await caughtUp.find(() => true, 'caught up');
      await daemon.publish('callbacks', [`throw`, `after/${transport}`]);
      await got.find((n) => n === `after/${transport}`, 'what follows a callback that threw');
      assert.ok(errors.every((message) => message === 'mine') && errors.length >= 1);
      assert.equal(events.status.state, 'open');
      client.close();
      assert.equal(events.status.state, 'closed');
    });
  }

  it('filters are applied by the daemon, and values with a comma are refused', async () => {
    const client = clientOf(daemon);
    const events = client.subscribe({ types: ['message', 'agent_update'], agentId: ['a', 'b'], userId: 'u' });
    await within(events.ready, 'ready');
    const [connection] = await daemon.api('GET', '/connections');
    assert.equal(connection.filter, 'types=message,agent_update&agent_id=a,b&user_id=u');
    assert.throws(() => client.subscribe({ agentId: 'a,b' }), TypeError);
    assert.throws(() => client.subscribe({ types: [] }), TypeError);
    assert.throws(() => client.subscribe({ buffer: 0 }), RangeError);
    for (const transport of ['websocket', 'toString', null]) {
      assert.throws(() => clientOf(daemon, { transport }), {
        name: 'TypeError',
        message: `transport: must be one of auto, ws, sse, poll, not ${JSON.stringify(transport)}`,
      });
    }
    client.close();
  });

  it('since begins with the first event received after it', async () => {
    await daemon.publish('since', [1]);
    const client = clientOf(daemon);
    const since = new Date(Date.now() - 60_000);
    for (const transport of ['ws', 'sse', 'poll']) {
      const events = clientOf(daemon, { transport }).subscribe({ channel: 'since', since });
      assert.equal((await take(events, 1))[0].data.n, 1);
      events.close();
    }
    client.close();
  });

  it('break or a signal ends the iteration and closes the connection', async () => {
    const client = clientOf(daemon);
    await daemon.publish('break', [1]);
    for await (const event of client.subscribe({ channel: 'break', earliest: true })) {
      assert.equal(event.data.n, 1);
      break;
    }
    const aborting = new AbortController();
    const events = client.subscribe({ signal: aborting.signal });
    await within(events.ready, 'ready');
    aborting.abort();
    assert.deepEqual(await events.next(), { done: true, value: undefined });
    const late = client.subscribe({ signal: aborting.signal });
    assert.equal(late.status.state, 'closed');
    await assert.rejects(late.ready, { code: 'CLOSED' });
    // A close takes time on the network: repeats until it has arrived.
    await within(
      (async () => {
        while ((await daemon.api('GET', '/connections')).length > 0);
      })(),
      'no connection',
    );
  });

  it('without a WebSocket, as in Node 20, auto begins with SSE', async () => {
    const { WebSocket } = globalThis;
    delete globalThis.WebSocket;
    try {
      const client = new Nervewire({ url: daemon.url, apiKey: daemon.key });
      const events = client.subscribe();
      await within(events.ready, 'ready');
      assert.equal(events.status.transport, 'sse');
      client.close();
      assert.throws(() => new Nervewire({ url: daemon.url, apiKey: daemon.key, transport: 'ws' }), TypeError);
    } finally {
      if (WebSocket) globalThis.WebSocket = WebSocket;
    }
  });

  it('LLM text: all deltas from the first chunk to the end; an error throws', async () => {
    const client = clientOf(daemon);
    const chunk = (index, text, is_final = false) => ({ type: 'stream_chunk', request_id: 'r-1', index, chunk: text, is_final });
    await client.publish([chunk(0, 'Your '), chunk(1, 'train ')]);
    for (const transport of ['ws', 'sse', 'poll']) {
      const deltas = [];
      const id = `r-${transport}`;
      await client.publish([
        { ...chunk(0, 'Your '), request_id: id },
        { ...chunk(1, 'train '), request_id: id },
      ]);
      const text = clientOf(daemon, { transport }).stream(id);
      deltas.push((await within(text.next(), 'a delta')).value);
      await client.publish([
        { ...chunk(1, 'train '), request_id: id },
        { ...chunk(2, 'leaves.', true), request_id: id },
      ]);
      let end;
      while (!(end = await within(text.next(), 'a delta')).done) deltas.push(end.value);
      assert.equal(deltas.join(''), 'Your train leaves.');
      assert.deepEqual(
        { ...end.value },
        { requestId: id, text: 'Your train leaves.', done: true, error: undefined, incomplete: false },
      );
    }
    await client.publish([
      chunk(2, 'is lost'),
      { type: 'error', code: 'TOOL_FAILED', message: 'no timetable', request_id: 'r-1' },
    ]);
    const deltas = [];
    await assert.rejects(
      async () => {
        for await (const delta of client.stream('r-1')) deltas.push(delta);
      },
      { code: 'TOOL_FAILED', message: 'no timetable' },
    );
    assert.equal(deltas.join(''), 'Your train is lost');
    client.close();
  });
});
