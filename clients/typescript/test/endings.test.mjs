// How connections end, and how the client reacts. A fake server sends the rows of docs/protocol.md's tables
// that the real daemon cannot be made to send.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { CURSOR, event, Fake, ready, say } from './support/fake.mjs';
import { clientOf, Inbox, take, within } from './support/story.mjs';

describe('endings', () => {
  let fake;
  before(async () => (fake = await Fake.start()));
  after(() => fake.close());
  beforeEach(() => {
    fake.connections = [];
    fake.tickets = undefined;
  });

  for (const code of [1002, 1003, 1007, 1008, 1009, 4403]) {
    it(`${code}: the subscription ends`, async () => {
      fake.scripts = [(ws, query) => (ready(ws, query), ws.close(code, 'because'))];
      const errors = [];
      const events = clientOf(fake, { transport: 'ws' }).subscribe({ onError: (error) => errors.push(error) });
      await assert.rejects(within(events.next(), 'the end'), { closeCode: code, message: 'because' });
      assert.equal(fake.connections.length, 1);
      assert.equal(errors.length, 1);
    });
  }

  for (const code of [1000, 1001, 1011, 1012, 4408, 4440, undefined]) {
    it(`${code ?? 'no code'}: it reconnects with its cursor`, async () => {
      const end = (ws) => (code === undefined ? ws.terminate() : ws.close(code));
      fake.scripts = [
        (ws, query) => (
          ready(ws, query),
          say(ws, event(1)),
          say(ws, { type: 'ping', timestamp: '', cursor: CURSOR(5) }),
          end(ws)
        ),
        (ws, query) => (ready(ws, query), say(ws, event(6))),
      ];
      const client = clientOf(fake, { transport: 'ws' });
      const got = await take(client.subscribe(), 2);
      assert.deepEqual(
        got.map((one) => one.data.n),
        [1, 6],
      );
      assert.equal(fake.connections[1].get('last_event_id'), CURSOR(5), 'a ping moves the cursor too');
      client.close();
    });
  }

  it('1013: it reconnects later', async () => {
    fake.scripts = [(ws, query) => (ready(ws, query), ws.close(1013))];
    const states = new Inbox();
    const client = clientOf(fake, { transport: 'ws' });
    client.subscribe({ onStatus: states.push });
    const { retryInMs, error } = await states.find((status) => status.state === 'waiting', 'waiting');
    assert.ok(retryInMs >= 5_000, `${retryInMs}`);
    assert.equal(error.code, 'QUOTA_EXCEEDED');
    client.close();
    assert.equal(fake.connections.length, 1);
  });

  it('waits grow without progress and are short again after it', async () => {
    fake.scripts = [
      ...Array(6).fill((ws, query) => (ready(ws, query), ws.close(1012))),
      (ws, query) => (ready(ws, query), say(ws, event(1)), ws.close(1012)),
      () => {},
    ];
    const waits = new Inbox();
    const client = clientOf(fake, { transport: 'ws', backoff: { leastMs: 2, mostMs: 60_000 } });
    client.subscribe({ onStatus: (status) => status.state === 'waiting' && waits.push(status.retryInMs) });
    await waits.find(() => waits.items.length === 7, 'seven waits');
    client.close();
    // The first one got a cursor, which is progress.
    assert.ok(waits.items[5] > 8 * waits.items[0], waits.items.join(' '));
    assert.ok(waits.items[6] <= 2, waits.items.join(' '));
  });

  it('two missed heartbeats: it reconnects', async () => {
    fake.scripts = [
      (ws, query) => (ready(ws, query, 0.1), say(ws, event(1))),
      (ws, query) => (ready(ws, query), say(ws, event(2))),
    ];
    const states = new Inbox();
    const client = clientOf(fake, { transport: 'ws' });
    assert.equal((await take(client.subscribe({ onStatus: states.push }), 2)).length, 2);
    assert.match((await states.find((status) => status.state === 'waiting')).error.message, /two heartbeats/);
    client.close();
  });

  it('SSE: two missed heartbeats: it reconnects; a comment counts as a heartbeat', async () => {
    let streams = 0;
    let alive;
    fake.answer = (request, response) => {
      streams += 1;
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(
        `retry: 2000\nevent: ready\nid: ${CURSOR(0)}\ndata: {"type":"ready","cursor":"${CURSOR(0)}","resumed":false,"replaying":0,"heartbeat_seconds":0.15}\n\n`,
      );
      let beats = 0;
      alive = setInterval(() => {
        beats += 1;
        if (beats <= 5) response.write(': heartbeat\n');
        if (beats === 5) clearInterval(alive);
      }, 100);
    };
    const states = new Inbox();
    const client = clientOf(fake, { transport: 'sse' });
    const began = Date.now();
    client.subscribe({ onStatus: states.push });
    await states.find((status) => status.state === 'waiting', 'waiting');
    assert.ok(Date.now() - began >= 700, 'five comments kept it');
    assert.equal(streams, 1);
    client.close();
    clearInterval(alive);
  });

  for (const [code, verdict] of [
    ['UNAVAILABLE', 'back'],
    ['INTERNAL_ERROR', 'back'],
    ['QUOTA_EXCEEDED', 'back'],
    ['FORBIDDEN', 'stop'],
    ['BAD_REQUEST', 'stop'],
    ['UNAUTHORIZED', 'stop'],
  ]) {
    it(`SSE closing with ${code}: ${verdict}`, async () => {
      const cursors = [];
      fake.answer = (request, response) => {
        cursors.push(request.headers['last-event-id']);
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        if (cursors.length > 1) return void response.write(`id: ${CURSOR(2)}\ndata: ${JSON.stringify(event(2))}\n\n`);
        response.end(
          `retry: 300\nid: ${CURSOR(1)}\ndata: ${JSON.stringify(event(1))}\n\nevent: closing\ndata: {"type":"error","code":"${code}","message":"m"}\n\n`,
        );
      };
      const states = new Inbox();
      const client = clientOf(fake, { transport: 'sse' });
      const events = client.subscribe({ onStatus: states.push });
      await take(events, 1);
      if (verdict === 'stop') await assert.rejects(within(events.next(), 'the end'), { code });
      else {
        await take(events, 1);
        assert.deepEqual(cursors, [undefined, CURSOR(1)]);
        assert.ok(states.items.find((status) => status.state === 'waiting').retryInMs >= 300, 'retry: is obeyed');
      }
      client.close();
    });
  }

  for (const [status, headers, code, expected] of [
    [429, { 'retry-after': '7' }, 'QUOTA_EXCEEDED', 7000],
    [503, { 'retry-after': '3' }, 'UNAVAILABLE', 3000],
    [403, {}, 'FORBIDDEN', 'stop'],
    [400, {}, 'BAD_REQUEST', 'stop'],
  ]) {
    it(`${status} before the upgrade, of SSE and of a poll: ${expected}`, async () => {
      const refuse = (_, response) =>
        response.writeHead(status, headers).end(JSON.stringify({ code, message: 'm', details: null, timestamp: '' }));
      fake.tickets = (request, response) => (refuse(request, response), true);
      fake.answer = refuse;
      for (const transport of ['ws', 'sse', 'poll', 'auto']) {
        const states = new Inbox();
        const client = clientOf(fake, { transport });
        client.subscribe({ onStatus: states.push });
        const status = await states.find(({ state }) => state === 'waiting' || state === 'closed', transport);
        assert.equal(status.error.code, code);
        if (expected === 'stop') assert.equal(status.state, 'closed');
        else assert.ok(status.retryInMs >= expected && status.retryInMs <= expected * 1.3, `${status.retryInMs}`);
        assert.ok(
          transport !== 'auto' || states.items.every((one) => (one.transport ?? 'ws') === 'ws'),
          'no transport is to blame',
        );
        client.close();
      }
    });
  }

  it('a frame that is not JSON: it reconnects with its cursor', async () => {
    fake.scripts = [
      (ws, query) => (ready(ws, query), say(ws, event(1)), ws.send('{')),
      (ws, query) => (ready(ws, query), say(ws, event(2))),
    ];
    const client = clientOf(fake, { transport: 'ws' });
    assert.deepEqual(
      (await take(client.subscribe(), 2)).map((one) => one.data.n),
      [1, 2],
    );
    client.close();
  });

  it('an unknown control frame is ignored', async () => {
    fake.scripts = [
      (ws, query) => (
        ready(ws, query),
        say(ws, { type: 'novelty', cursor: 'x' }),
        say(ws, { type: 'novelty' }),
        say(ws, event(1))
      ),
    ];
    const client = clientOf(fake, { transport: 'ws' });
    const events = client.subscribe();
    assert.equal((await take(events, 1))[0].data.n, 1);
    client.close();
  });

  it('events after close() are not delivered', async () => {
    let socket;
    fake.scripts = [(ws, query) => (ready(ws, query), (socket = ws))];
    const got = [];
    const client = clientOf(fake, { transport: 'ws' });
    const events = client.subscribe({ onEvent: (one) => (got.push(one), events.close()) });
    await within(events.ready, 'ready');
    const gone = new Promise((done) => socket.on('close', done));
    say(socket, event(1));
    say(socket, event(2));
    await within(gone, 'the close');
    assert.deepEqual(
      got.map((one) => one.data.n),
      [1],
    );
    assert.equal(events.cursor, CURSOR(1));
  });
});
