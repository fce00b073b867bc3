// Writers and readers of streams against the real daemon, through a proxy that cuts, and through kill -9.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { BATCH_UNITS, WAITING_UNITS } from '../dist/streams/outbox.js';
import { Daemon } from './support/daemon.mjs';
import { Proxy, seeded } from './support/proxy.mjs';
import { clientOf, sameText, take, within } from './support/story.mjs';

const THINK = { type: 'reasoning', id: 'think', name: 'plan' };
const TOKENS = 400;

describe('streams of the daemon', () => {
  let daemon, client;
  before(async () => {
    daemon = await Daemon.start();
    client = clientOf(daemon);
  });
  after(async () => {
    client?.close();
    await daemon?.stop();
  });

  for (const [transport, seed] of [
    ['sse', 41],
    ['ws', 42],
    ['poll', 43],
  ]) {
    it(`${transport}: the exact text through cuts on both sides and kill -9 of the daemon`, async () => {
      const random = seeded(seed);
      const proxy = await Proxy.before(daemon.port);
      const cutting = { url: proxy.url, key: daemon.key };
      const producer = clientOf(cutting);
      const readers = [clientOf(cutting, { transport }), clientOf(daemon, { transport })];
      try {
        proxy.budget = () => Math.floor(600 + random() ** 2 * 20_000);
        let writer;
        while (!writer) writer = await producer.openStream({ takeover: true }).catch(() => undefined);
        const early = readers.map((one) => one.readStream(writer.requestId));
        const texts = early.map((one) => one.text());
        let wanted = '';
        for (let n = 0; n < TOKENS; n += 1) {
          const token = `${n}😀é `;
          wanted += token;
          await writer.append(token);
          if (random() < 0.2) await writer.append('not text', { part: THINK });
          if (random() < 0.1) await writer.flush();
          if (random() < 0.05) proxy.cut();
          if (n === TOKENS / 2) {
            await daemon.kill();
            await daemon.serve();
          }
        }
        const end = await within(writer.finish({ finishReason: 'stop', usage: { n: 1 } }), 'the end');
        assert.deepEqual([end.state, end.finish_reason, end.usage], ['completed', 'stop', { n: 1 }]);
        proxy.budget = () => Infinity;
        for (const text of texts) sameText(await within(text, 'the text'), wanted);
        for (const reader of early) {
          const { state, finishReason, usage, incomplete } = await reader.finished;
          assert.deepEqual([state, finishReason, usage, incomplete], ['completed', 'stop', { n: 1 }, false]);
        }
        sameText(await within(readers[1].readStream(writer.requestId).text(), 'the text of a late reader'), wanted);
        assert.ok(proxy.cuts >= 5, `cut only ${proxy.cuts} times`);
      } finally {
        producer.close();
        readers.forEach((one) => one.close());
        await proxy.close();
      }
    });

    it(`${transport}: parts, a cursor to continue from, and a failure`, async () => {
      const writer = await client.openStream();
      const reading = clientOf(daemon, { transport });
      const reader = reading.readStream(writer.requestId, { parts: 'all' });
      await writer.append('Let me see');
      const [first] = await take(reader, 1);
      assert.deepEqual([first.text, first.part, first.index, first.firstIndex], ['Let me see', undefined, 0, 0]);
      await writer.append('a train', { part: THINK });
      const [second] = await take(reader, 1);
      assert.deepEqual([second.text, second.part], ['a train', THINK]);
      const { cursor } = reader;
      reader.close();
      await writer.append(' more');
      await writer.fail('MODEL_BROKE', 'it does not answer');
      const rest = reading.readStream(writer.requestId, { parts: 'all', cursor });
      const pieces = [];
      for await (const { text, part } of rest) pieces.push([text, part]);
      // Long-poll has no cursor: it begins with the first chunk.
      const all = [
        ['Let me see', undefined],
        ['a train', THINK],
        [' more', undefined],
      ];
      assert.deepEqual(pieces, transport === 'poll' ? all : all.slice(2));
      const end = await rest.finished;
      assert.deepEqual([end.state, end.error], ['failed', { code: 'MODEL_BROKE', message: 'it does not answer' }]);
      reading.close();
    });

    it(`${transport}: a cursor of another store: the text begins again, and the consumer is told`, async () => {
      const writer = await client.openStream();
      await writer.append('Let me see');
      await writer.flush();
      const reading = clientOf(daemon, { transport });
      const reader = reading.readStream(writer.requestId, { cursor: 'from-another-store' });
      const [reset, first] = await take(reader, 2);
      assert.deepEqual([reset.reset, reset.text, first.text], [true, '', 'Let me see']);
      await writer.append('.');
      await writer.finish();
      assert.equal(await within(reader.text(), 'the rest'), '.');
      reading.close();
    });

    it(`${transport}: it is cancelled by its user while the model is silent`, async () => {
      const alice = clientOf(daemon, { transport, token: await daemon.token('alice') });
      const writer = await client.openStream({ userId: 'alice' });
      const reader = alice.readStream(writer.requestId);
      const stopped = new Promise((done) => writer.signal.addEventListener('abort', done));
      const row = await alice.cancelStream(writer.requestId, { reason: 'the user pressed stop' });
      assert.equal(row.state, 'cancelled');
      await within(stopped, 'the producer sees it');
      assert.equal(writer.signal.reason.code, 'STREAM_CANCELLED');
      await assert.rejects(writer.finish(), { code: 'STREAM_CANCELLED' });
      assert.equal(await within(reader.text(), 'the text'), '');
      const end = await reader.finished;
      assert.deepEqual([end.state, end.error], ['cancelled', { code: 'CANCELLED', message: 'the user pressed stop' }]);
      alice.close();
    });
  }

  it('text of any kind and size arrives as it was appended', async () => {
    const texts = [
      '\u0000\n"\\',
      '\ud83d',
      '\ude00',
      'é'.repeat(BATCH_UNITS / 8),
      '\u0001'.repeat(WAITING_UNITS / 4),
      '€'.repeat(99_999),
    ];
    const writer = await client.openStream();
    for (const text of texts) await writer.append(text);
    await writer.append('end\ud800');
    const end = await writer.finish();
    const wanted = texts.join('') + 'end\ufffd';
    sameText((await client.getStream(writer.requestId)).text, wanted);
    assert.equal(end.text_bytes, Buffer.byteLength(wanted));
    sameText(await within(client.readStream(writer.requestId).text(), 'the text'), wanted);
  });

  it('a successor takes the stream over, and the first producer can write no more', async () => {
    const first = await client.openStream({ agentId: 'planner', metadata: { model: 'm' } });
    await first.append('one ');
    await first.flush();
    const { requestId } = first;
    await assert.rejects(client.openStream({ requestId }), { code: 'CONFLICT' });
    const second = await client.openStream({ requestId, takeover: true });
    assert.deepEqual([second.generation, second.nextIndex], [2, 1]);
    await first.append('never');
    await assert.rejects(first.finish(), { code: 'STREAM_FENCED' });
    assert.equal(first.signal.aborted, true);
    await second.append('two');
    await second.finish();
    const { text, state, generation, metadata } = await client.getStream(requestId);
    assert.deepEqual([text, state, generation, metadata], ['one two', 'completed', 2, { model: 'm' }]);
    await assert.rejects(client.openStream({ requestId, takeover: true }), { code: 'CONFLICT' });
  });

  it('a producer that died: its readers get the end', async () => {
    const writer = await client.openStream({ leaseSeconds: 5 });
    await writer.append('so far');
    await writer.flush();
    const reader = client.readStream(writer.requestId);
    writer.close();
    assert.equal(await within(reader.text(), 'the text'), 'so far');
    const end = await reader.finished;
    assert.deepEqual([end.state, end.error.code], ['abandoned', 'ABANDONED']);
  });

  it('lists, shows, cancels and deletes', async () => {
    const agentId = 'lister';
    const ids = [];
    for (const n of [1, 2, 3]) {
      const writer = await client.openStream({ agentId, requestId: `list/${n}` });
      await writer.append('text');
      await writer.flush();
      ids.push(writer.requestId);
    }
    const listed = async (filter) => {
      const found = [];
      for await (const { request_id } of client.listStreams({ limit: 2, ...filter })) found.push(request_id);
      return found;
    };
    assert.deepEqual(await listed({ agentId }), ids.toReversed());
    await client.cancelStream(ids[1]);
    await client.cancelStream(ids[1]);
    assert.deepEqual(await listed({ agentId, state: 'open' }), [ids[2], ids[0]]);
    assert.deepEqual(await listed({ state: 'cancelled', agentId }), [ids[1]]);
    const shown = await client.getStream(ids[0], { offset: 2, parts: 'all' });
    assert.deepEqual([shown.text, shown.offset, shown.parts], ['xt', 2, [{ part: null, text: 'text' }]]);
    assert.equal((await client.getStream(ids[0], { text: false })).text, null);
    await assert.rejects(client.deleteStream(ids[0]), { status: 409 });
    await client.deleteStream(ids[1]);
    assert.equal((await client.getStream(ids[1])).text, null);
    await assert.rejects(client.getStream('nobody'), { code: 'NOT_FOUND' });
  });
});
