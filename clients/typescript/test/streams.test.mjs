// Writers and readers of streams, over connections that fail at any moment. A fake server keeps the streams.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { NervewireError, StreamStateError } from 'nervewire';
import { WAITING_UNITS } from '../dist/streams/outbox.js';
import { FakeStreams } from './support/fake-streams.mjs';
import { seeded } from './support/proxy.mjs';
import { clientOf, take, until, within } from './support/story.mjs';

const THINK = { type: 'reasoning', id: 'think' };
const aborted = (signal) =>
  within(new Promise((done) => (signal.aborted ? done() : signal.addEventListener('abort', done))), 'the signal of the writer');

describe('streams', () => {
  let fake, client;
  before(async () => (fake = await FakeStreams.start()));
  after(() => fake.close());
  beforeEach(() => (client = clientOf(fake)));
  afterEach(() => {
    client.close();
    Object.assign(fake, { requests: [], fault: () => undefined, cutAfter: () => Infinity });
    fake.streams.clear();
  });

  describe('a writer', () => {
    it('opens, appends, and finishes with what is left', async () => {
      const writer = await client.openStream({ requestId: 'r/1', metadata: { model: 'm' }, leaseSeconds: 9 });
      assert.deepEqual([writer.requestId, writer.generation, writer.leaseSeconds], ['r/1', 1, 9]);
      await writer.append('Your ');
      await writer.append('hm', { part: THINK });
      await writer.append('train');
      const end = await writer.finish({ finishReason: 'stop', usage: { output_tokens: 2 } });
      assert.deepEqual([end.state, end.finish_reason, end.usage], ['completed', 'stop', { output_tokens: 2 }]);
      assert.deepEqual(fake.streams.get('r/1').chunks, [
        { text: 'Your ', part: undefined },
        { text: 'hm', part: THINK },
        { text: 'train', part: undefined },
      ]);
      const [{ body }] = fake.of('POST', undefined);
      assert.deepEqual(body, { request_id: 'r/1', metadata: { model: 'm' }, lease_seconds: 9 });
      assert.equal(writer.signal.aborted, false);
      await assert.rejects(writer.append('late'), { code: 'STREAM_ENDED' });
      await assert.rejects(writer.finish(), StreamStateError);
    });

    it('makes an id that nobody can guess', async () => {
      const ids = await Promise.all([client.openStream(), client.openStream()].map(async (one) => (await one).requestId));
      for (const id of ids) assert.match(id, /^stream-[0-9a-f]{32}$/);
      assert.notEqual(ids[0], ids[1]);
    });

    it('sends what was appended meanwhile in the next request', async () => {
      const writer = await client.openStream({ requestId: 'r' });
      const tokens = Array.from({ length: 1000 }, (_, n) => `${n} `);
      for (const token of tokens) await writer.append(token);
      await writer.flush();
      assert.equal(writer.nextIndex, 1000);
      assert.equal(fake.text('r'), tokens.join(''));
      assert.ok(fake.of('POST', 'streams').length < 10, `${fake.requests.length} requests`);
    });

    it('loses and repeats nothing, whatever is lost on the way', async () => {
      for (const seed of [21, 22, 23]) {
        const random = seeded(seed);
        fake.fault = () =>
          random() < 0.5
            ? random() < 0.5
              ? 'drop'
              : 'lose'
            : random() < 0.1
              ? { status: 503, code: 'UNAVAILABLE', headers: { 'retry-after': '0' } }
              : undefined;
        const patient = clientOf(fake, { backoff: { leastMs: 1, mostMs: 2 } });
        const id = `r-${seed}`;
        let writer;
        while (!writer) writer = await patient.openStream({ requestId: id, takeover: true }).catch(() => undefined);
        const tokens = Array.from({ length: 60 }, (_, n) => `${n}😀 `);
        for (const [n, token] of tokens.entries()) {
          await writer.append(token);
          if (n % 5 === 0) await writer.flush();
        }
        const end = await within(writer.finish({ finishReason: 'stop' }), 'the end');
        assert.equal(end.state, 'completed');
        assert.equal(fake.text(id), tokens.join(''));
        patient.close();
      }
    });

    it('takes the stream over if the answer to opening it was lost', async () => {
      let lost = 1;
      fake.fault = ({ path }) => (path === '/streams' && lost-- > 0 ? 'lose' : undefined);
      const writer = await client.openStream({ requestId: 'r' });
      assert.equal(writer.generation, 2);
      await writer.append('a');
      await writer.finish();
      assert.equal(fake.text('r'), 'a');
    });

    it('does not take over a stream of somebody else unless told to', async () => {
      fake.open('r');
      fake.append('r', 'before ');
      await assert.rejects(client.openStream({ requestId: 'r' }), { code: 'CONFLICT', status: 409 });
      assert.equal(fake.streams.get('r').generation, 1);
      const writer = await client.openStream({ requestId: 'r', takeover: true });
      assert.deepEqual([writer.generation, writer.nextIndex], [2, 1]);
      await writer.append('after');
      await writer.finish();
      assert.equal(fake.text('r'), 'before after');
    });

    for (const [code, happens] of [
      ['STREAM_CANCELLED', () => fake.cancel('r')],
      ['STREAM_ABANDONED', () => fake.end('r', 'abandoned', { error: { code: 'ABANDONED', message: 'm' } })],
      ['STREAM_ENDED', () => fake.end('r', 'completed')],
      ['STREAM_FENCED', () => (fake.streams.get('r').generation += 1)],
    ]) {
      it(`${code}: it stops, and says so to everything that is waiting`, async () => {
        const writer = await client.openStream({ requestId: 'r' });
        await writer.append('a');
        await writer.flush();
        happens();
        const appended = fake.streams.get('r').chunks.length;
        await writer.append('b');
        await aborted(writer.signal);
        const isState = (error) => error instanceof StreamStateError && error instanceof NervewireError && error.code === code;
        assert.ok(isState(writer.signal.reason));
        for (const word of [
          () => writer.append('c'),
          () => writer.flush(),
          () => writer.finish(),
          () => writer.fail('X', 'x'),
          () => writer.renew(),
          () => writer.cancel(),
        ]) {
          await assert.rejects(word(), isState);
        }
        assert.equal(fake.streams.get('r').chunks.length, appended);
      });
    }

    it('learns of a cancel while the model is silent, before the first chunk too', async () => {
      const writers = await Promise.all(['r1', 'r2'].map((requestId) => client.openStream({ requestId })));
      const asked = () => fake.requests.filter(({ path }) => path.endsWith('/renew')).length;
      await until(() => asked() >= 2, 'both ask when the watch begins');
      assert.equal(fake.watchers.size, 1, 'one connection for both');
      fake.cancel('r2', 'the user pressed stop');
      await aborted(writers[1].signal);
      assert.equal(writers[1].signal.reason.code, 'STREAM_CANCELLED');
      assert.equal(writers[0].signal.aborted, false);
      await writers[0].finish();
      await until(() => fake.watchers.size === 0, 'no connection is left');
    });

    it('learns of a cancel that came before it began to watch', async () => {
      const writer = await client.openStream({ requestId: 'r' });
      fake.cancel('r');
      await aborted(writer.signal);
    });

    it('renews its lease, and learns of a cancel even without the right to read', async () => {
      fake.fault = ({ path }) => (path === '/tickets' ? { status: 403, code: 'FORBIDDEN' } : undefined);
      const blind = clientOf(fake, { transport: 'ws' });
      const writer = await blind.openStream({ requestId: 'r', leaseSeconds: 5 });
      const asked = () => fake.requests.filter(({ path }) => path.endsWith('/renew')).length;
      await until(() => asked() >= 2, 'two renewals');
      fake.cancel('r');
      await aborted(writer.signal);
      assert.equal(writer.signal.reason.code, 'STREAM_CANCELLED');
      blind.close();
    });

    it('makes a fast model wait', async () => {
      let release;
      const held = new Promise((done) => (release = done));
      fake.fault = async ({ path }) => (path.endsWith('/chunks') ? void (await held) : undefined);
      const writer = await client.openStream({ requestId: 'r' });
      const text = 'x'.repeat(WAITING_UNITS);
      await writer.append(text);
      let isAppended = false;
      const waiting = writer.append('y').then(() => (isAppended = true));
      await client.getStream('r');
      assert.equal(isAppended, false);
      release();
      await within(waiting, 'room');
      await writer.finish();
      assert.equal(fake.text('r'), text + 'y');
    });

    it('refused text ends the writing; the stream can still be failed', async () => {
      fake.fault = ({ path }) => (path.endsWith('/chunks') ? { status: 413, code: 'PAYLOAD_TOO_LARGE' } : undefined);
      const writer = await client.openStream({ requestId: 'r' });
      await writer.append('too much');
      await aborted(writer.signal);
      await assert.rejects(writer.append('more'), { status: 413 });
      await assert.rejects(writer.finish(), { status: 413 });
      const end = await writer.fail('TOO_LONG', 'the answer is too long');
      assert.deepEqual([end.state, end.error], ['failed', { code: 'TOO_LONG', message: 'the answer is too long' }]);
    });

    it('fail appends what is left; cancel does not', async () => {
      const failing = await client.openStream({ requestId: 'r1' });
      await failing.append('the text before');
      await failing.fail('MODEL', 'm');
      assert.equal(fake.text('r1'), 'the text before');
      const cancelling = await client.openStream({ requestId: 'r2' });
      const end = await cancelling.cancel('not needed');
      assert.deepEqual([end.state, end.error.message], ['cancelled', 'not needed']);
      assert.equal(cancelling.signal.aborted, true, 'the call of the model ends too');
    });

    it('close leaves the stream to its lease or to another producer', async () => {
      const writer = await client.openStream({ requestId: 'r' });
      client.close();
      assert.equal(writer.signal.aborted, true);
      await assert.rejects(writer.append('a'), { code: 'CLOSED' });
      assert.equal(fake.streams.get('r').state, 'open');
    });

    it('pipeTo: the end of the source finishes the stream', async () => {
      const writer = await client.openStream({ requestId: 'r' });
      await new Blob(['Your train ', 'leaves at 9.']).stream().pipeThrough(new TextDecoderStream()).pipeTo(writer.writable);
      assert.deepEqual([fake.text('r'), fake.streams.get('r').state], ['Your train leaves at 9.', 'completed']);
    });

    it('pipeTo: an error of the source fails the stream', async () => {
      const writer = await client.openStream({ requestId: 'r' });
      const source = new ReadableStream({
        start: (controller) => controller.enqueue('so far'),
        pull: (controller) => controller.error(new Error('the model broke')),
      });
      await assert.rejects(source.pipeTo(writer.writable), /the model broke/);
      const { state, error } = fake.streams.get('r');
      assert.deepEqual([state, error], ['failed', { code: 'PRODUCER_FAILED', message: 'the model broke' }]);
    });

    it('pipeTo: a cancel from elsewhere cancels the source', async () => {
      const writer = await client.openStream({ requestId: 'r' });
      let cancelled;
      const source = new ReadableStream({
        start: (controller) => controller.enqueue('so far'),
        cancel: (reason) => (cancelled = reason),
      });
      const piped = source.pipeTo(writer.writable);
      fake.cancel('r');
      await assert.rejects(within(piped, 'the end of the pipe'), { code: 'STREAM_CANCELLED' });
      assert.equal(cancelled.code, 'STREAM_CANCELLED');
    });
  });

  describe('a reader', () => {
    for (const transport of ['sse', 'ws', 'poll']) {
      const reading = () => (client = clientOf(fake, { transport }));

      it(`${transport}: the text from the first chunk, then live, then the end`, async () => {
        fake.open('r');
        fake.append('r', 'Your ');
        fake.append('r', 'train ');
        const reader = reading().readStream('r');
        const [first] = await take(reader, 1);
        assert.deepEqual([first.text, first.index], ['Your train ', 1]);
        fake.append('r', 'leaves');
        const [second] = await take(reader, 1);
        assert.deepEqual([second.text, second.index, second.firstIndex], ['leaves', 2, 2]);
        fake.end('r', 'completed', { reason: 'stop', usage: { n: 1 } });
        assert.deepEqual(await within(reader.next(), 'the end'), { done: true, value: undefined });
        const end = { state: 'completed', finishReason: 'stop', usage: { n: 1 }, error: undefined, incomplete: false };
        assert.deepEqual(await reader.finished, end);
      });

      it(`${transport}: a stream that ended before, read by two at once`, async () => {
        fake.open('r');
        ['a', 'b', 'c'].forEach((text) => fake.append('r', text));
        fake.end('r', 'completed');
        const readers = [reading().readStream('r'), client.readStream('r')];
        assert.deepEqual(await within(Promise.all(readers.map((one) => one.text())), 'the texts'), ['abc', 'abc']);
      });

      for (const [state, code] of [
        ['failed', 'MODEL_BROKE'],
        ['cancelled', 'CANCELLED'],
        ['abandoned', 'ABANDONED'],
      ]) {
        it(`${transport}: ${state}: the text before stays, and the error is known`, async () => {
          fake.open('r');
          fake.append('r', 'so far');
          const reader = reading().readStream('r');
          await take(reader, 1);
          fake.end('r', state, { error: { code, message: 'because' } });
          const late = client.readStream('r');
          assert.equal(await within(late.text(), 'the text'), 'so far');
          for (const one of [reader, late]) {
            const end = await within(one.finished, 'the end');
            assert.deepEqual([end.state, end.error], [state, { code, message: 'because' }]);
          }
        });
      }

      it(`${transport}: with all parts, or text alone`, async () => {
        fake.open('r');
        fake.append('r', 'a');
        fake.append('r', 'hm', THINK);
        fake.append('r', 'b', { type: 'text', id: 't' });
        fake.end('r', 'completed');
        reading();
        const all = [];
        for await (const { text, part } of client.readStream('r', { parts: 'all' })) all.push([text, part?.id]);
        assert.deepEqual(all, [
          ['a', undefined],
          ['hm', 'think'],
          ['b', 't'],
        ]);
        assert.equal(await client.readStream('r', { parts: 'all' }).text(), 'ab');
        assert.equal(await client.readStream('r').text(), 'ab');
      });

      it(`${transport}: the exact text through cuts`, async () => {
        const random = seeded(transport.length * 7);
        fake.open('r');
        fake.cutAfter = () => Math.floor(300 + random() ** 2 * 2000);
        fake.fault = ({ method }) => (method === 'GET' && random() < 0.3 ? 'drop' : undefined);
        const reader = reading().readStream('r');
        let text = '';
        const all = (async () => {
          for await (const piece of reader) text += piece.text;
        })();
        for (let n = 0; n < 200; n += 1) {
          fake.append('r', `${n}😀 `);
          if (random() < 0.3) await until(() => text === fake.text('r'), 'the text so far');
          if (random() < 0.2) fake.cut();
        }
        fake.end('r', 'completed');
        await within(all, 'the end');
        assert.equal(text, fake.text('r'));
        const sessions = { sse: /sse/, ws: /tickets/, poll: /streams/ }[transport];
        const count = fake.requests.filter(({ path }) => sessions.test(path)).length;
        assert.ok(count > 20, `${count} sessions`);
      });

      it(`${transport}: a stream that is opened only later`, async () => {
        const reader = reading().readStream('r');
        const text = reader.text();
        await until(() => fake.requests.some(({ path }) => /sse|streams|tickets/.test(path)), 'the first request');
        fake.open('r');
        fake.append('r', 'late');
        fake.end('r', 'completed');
        assert.equal(await within(text, 'the text'), 'late');
      });
    }

    it('the exact text over changing transports', async () => {
      for (const parts of ['text', 'all']) {
        const random = seeded(parts.length);
        const id = `r-${parts}`;
        fake.open(id);
        let isBlocked = false;
        fake.fault = ({ path }) => (isBlocked && path === '/sse/llm' ? 'drop' : undefined);
        // Without a WebSocket it goes from SSE to long-poll, and back after 20 ms.
        client = clientOf(fake, { WebSocket: undefined, timing: { climbAfterMs: 20, pollWaitSeconds: 1 } });
        const used = [];
        const onStatus = ({ state, transport }) => state === 'open' && used.push(transport);
        const reader = client.readStream(id, { parts, onStatus });
        const got = { '': '', think: '' };
        const wanted = { '': '', think: '' };
        const all = (async () => {
          for await (const { text, part, reset } of reader) {
            assert.equal(reset, undefined);
            got[part?.id ?? ''] += text;
          }
        })();
        for (let n = 0; n < 150; n += 1) {
          const part = random() < 0.3 ? THINK : undefined;
          fake.append(id, `${n}é😀 `, part);
          if (!part || parts === 'all') wanted[part?.id ?? ''] += `${n}é😀 `;
          if (n % 25 === 20) {
            isBlocked = !isBlocked;
            if (isBlocked) fake.cut();
            await until(() => used.at(-1) === (isBlocked ? 'poll' : 'sse'), 'the other transport');
          } else if (random() < 0.3) {
            await until(() => got[''] === wanted[''] && got.think === wanted.think, 'the text so far');
          }
        }
        fake.end(id, 'completed');
        await within(all, 'the end');
        assert.deepEqual(got, wanted);
        const changes = used.filter((transport, at) => at > 0 && transport !== used[at - 1]).length;
        assert.ok(changes >= 5, used.join(' '));
        client.close();
      }
    });

    it('a lost `done`: the rest is looked up', async () => {
      fake.open('r');
      fake.append('r', 'text');
      const reader = client.readStream('r');
      await take(reader, 1);
      // The end arrives, but not what follows it.
      for (const one of fake.readers) one.end = one.cut;
      fake.end('r', 'failed', { error: { code: 'X', message: 'x' } });
      const end = await within(reader.finished, 'the end');
      assert.deepEqual([end.state, end.error, end.incomplete], ['failed', { code: 'X', message: 'x' }, false]);
    });

    it('continues after a cursor, and finds nothing more at the end', async () => {
      fake.open('r');
      fake.append('r', 'one ');
      const first = client.readStream('r');
      await take(first, 1);
      first.close();
      await assert.rejects(first.finished, { code: 'CLOSED' });
      fake.append('r', 'two ');
      const second = client.readStream('r', { cursor: first.cursor });
      assert.equal((await take(second, 1))[0].text, 'two ');
      fake.end('r', 'cancelled', { error: { code: 'CANCELLED', message: 'stop' } });
      await within(second.finished, 'the end');
      const third = client.readStream('r', { cursor: fake.streams.get('r').events.at(-1).id });
      assert.equal(await within(third.text(), 'the text'), '');
      const end = await third.finished;
      assert.deepEqual([end.state, end.error.message, end.incomplete], ['cancelled', 'stop', false]);
    });

    it('an expired text is reported as missing', async () => {
      fake.open('r', { isExpired: true });
      fake.append('r', 'gone');
      fake.end('r', 'completed');
      fake.streams.get('r').events.length = 0;
      for (const transport of ['sse', 'poll']) {
        const reader = clientOf(fake, { transport }).readStream('r');
        assert.equal(await within(reader.text(), 'the text'), '');
        const end = await reader.finished;
        assert.deepEqual([end.state, end.incomplete], ['completed', true]);
      }
    });

    it('closing NOT_FOUND: nobody has opened it', async () => {
      const closing = { type: 'error', code: 'NOT_FOUND', message: 'there is no such stream' };
      fake.fault = ({ path }) =>
        path === '/sse/llm' ? { sse: `event: closing\ndata: ${JSON.stringify(closing)}\n\n` } : undefined;
      const reader = client.readStream('r');
      await assert.rejects(within(reader.next(), 'the error'), { code: 'NOT_FOUND' });
      await assert.rejects(reader.finished, { code: 'NOT_FOUND' });
      assert.equal(reader.status.state, 'closed');
    });

    it('closing for lack of room: it comes back', async () => {
      fake.open('r');
      fake.append('r', 'a');
      fake.end('r', 'completed');
      const closing = { type: 'error', code: 'UNAVAILABLE', message: 'draining' };
      let times = 2;
      fake.fault = ({ path }) =>
        path === '/sse/llm' && times-- > 0
          ? { sse: `retry: 5\nevent: closing\ndata: ${JSON.stringify(closing)}\n\n` }
          : undefined;
      assert.equal(await within(client.readStream('r').text(), 'the text'), 'a');
    });

    it('an unknown cursor: the text begins again, and the consumer is told', async () => {
      fake.open('r');
      fake.append('r', 'other ');
      const gap = { type: 'gap', after: 'old', resumes_at: 'c1', reason: 'unknown_cursor' };
      fake.fault = ({ path, headers }) =>
        path === '/sse/llm' && headers['last-event-id'] === 'old'
          ? {
              sse: `event: gap\nid: c1\ndata: ${JSON.stringify(gap)}\n\ndata: {"id":"c2","type":"stream_chunk","request_id":"r","chunk":"!","index":7,"is_final":false}\nid: c2\n\n`,
            }
          : undefined;
      const reader = client.readStream('r', { cursor: 'old' });
      const text = reader.text();
      await until(() => fake.readers.size > 0, 'the second session');
      fake.append('r', 'text');
      fake.end('r', 'completed');
      assert.equal(await within(text, 'the text'), 'other text');
      const [first] = await take(client.readStream('r', { cursor: 'old' }), 1);
      assert.deepEqual(first, { text: '', index: 0, firstIndex: 0, reset: true });
    });

    it('a slow consumer gets fewer, larger pieces, and `finished` does not wait for it', async () => {
      fake.open('r');
      const reader = client.readStream('r');
      const first = reader.next();
      await until(() => fake.readers.size > 0, 'a reader');
      for (let n = 0; n < 3000; n += 1) fake.append('r', `${n},`);
      fake.end('r', 'completed');
      await within(reader.finished, 'the end');
      const pieces = [(await first).value];
      for await (const piece of reader) pieces.push(piece);
      assert.ok(pieces.length < 10, `${pieces.length} pieces`);
      assert.equal(pieces.map(({ text }) => text).join(''), fake.text('r'));
      assert.deepEqual([pieces[0].firstIndex, pieces.at(-1).index], [0, 2999]);
    });

    it('break, close and a signal end it', async () => {
      fake.open('r');
      fake.append('r', 'a');
      for await (const { text } of client.readStream('r')) {
        assert.equal(text, 'a');
        break;
      }
      const aborting = new AbortController();
      const reader = client.readStream('r', { signal: aborting.signal });
      await take(reader, 1);
      aborting.abort();
      assert.deepEqual(await reader.next(), { done: true, value: undefined });
      await assert.rejects(reader.finished, { code: 'CLOSED' });
      assert.equal(client.readStream('r', { signal: aborting.signal }).status.state, 'closed');
      await until(() => fake.readers.size === 0, 'no connection is left');
    });

    it('a refused credential ends it', async () => {
      fake.fault = () => ({ status: 403, code: 'FORBIDDEN', message: 'needs subscribe' });
      const reader = client.readStream('r');
      await assert.rejects(within(reader.text(), 'the error'), { code: 'FORBIDDEN' });
    });
  });

  it('show, list, cancel and delete', async () => {
    fake.open('r/1');
    fake.append('r/1', 'text');
    const shown = await client.getStream('r/1', { offset: 2, wait: 0, known: 0 });
    assert.deepEqual([shown.text, shown.offset, shown.state], ['xt', 2, 'open']);
    let lost = 1;
    fake.fault = ({ path }) => (path.endsWith('/cancel') && lost-- > 0 ? 'lose' : undefined);
    const cancelled = await client.cancelStream('r/1', { reason: 'stop' });
    assert.deepEqual([cancelled.state, cancelled.error.message], ['cancelled', 'stop']);
    fake.fault = ({ method, path }) => (method !== 'POST' || path === '/streams' ? { status: 400, code: 'SEEN' } : undefined);
    await assert.rejects(client.listStreams({ state: 'open', agentId: 'a', userId: 'u', limit: 5 }).page(), { code: 'SEEN' });
    assert.equal(String(fake.requests.at(-1).query), 'state=open&agent_id=a&user_id=u&limit=5');
    await assert.rejects(client.deleteStream('r/1'), { code: 'SEEN' });
    assert.deepEqual([fake.requests.at(-1).method, fake.requests.at(-1).path], ['DELETE', '/streams/r%2F1']);
  });
});
