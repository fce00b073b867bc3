// Tests of the parts of streams that use no network.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Outbox, BATCH_CHUNKS, BATCH_UNITS, CHUNK_MOST, WAITING_CHUNKS, WAITING_UNITS } from '../../dist/streams/outbox.js';
import { StreamProgress } from '../../dist/streams/progress.js';
import { seeded } from '../support/proxy.mjs';

const THINK = { type: 'reasoning', id: 'think' };
const chunksOf = (outbox) => {
  const all = [];
  for (let batch = outbox.batch(); batch.length > 0; batch = outbox.batch()) {
    all.push(...batch);
    outbox.acknowledge(batch.at(-1).index + 1);
  }
  return all;
};
const joined = (chunks) => chunks.map(({ chunk }) => chunk).join('');

test('chunks are numbered from the first, and stay until they are acknowledged', () => {
  const outbox = new Outbox(7);
  outbox.add('a', undefined);
  outbox.add('', undefined);
  outbox.add('b', THINK);
  const batch = [
    { index: 7, chunk: 'a' },
    { index: 8, chunk: 'b', part: THINK },
  ];
  assert.deepEqual(outbox.batch(), batch);
  assert.deepEqual(outbox.batch(), batch, 'sent again');
  outbox.acknowledge(7);
  assert.equal(outbox.acknowledgedIndex, 7);
  outbox.acknowledge(8);
  assert.deepEqual(outbox.batch(), batch.slice(1));
  outbox.acknowledge(9);
  assert.deepEqual([outbox.batch(), outbox.acknowledgedIndex], [[], 9]);
});

test('text of any kind is cut into chunks that the daemon accepts', () => {
  const random = seeded(5);
  const letters = ['a', 'é', '€', '😀', '\u0000', '\n', '"', '\ud83d', '\ude00'];
  for (let round = 0; round < 100; round += 1) {
    const outbox = new Outbox(0);
    let wanted = '';
    for (let n = 0; n < 20; n += 1) {
      const text = Array.from({ length: random() ** 4 * 4000 }, () => letters[Math.floor(random() * letters.length)]).join('');
      wanted += text;
      outbox.add(text, undefined);
    }
    outbox.close();
    const chunks = chunksOf(outbox);
    assert.equal(joined(chunks), wanted.toWellFormed(), 'pairs that were cut between texts are whole');
    chunks.forEach(({ index, chunk }, at) => {
      assert.equal(index, at);
      assert.ok(chunk.length > 0 && chunk.length <= CHUNK_MOST && chunk.isWellFormed());
      assert.ok(Buffer.byteLength(JSON.stringify(chunk)) < 60_000);
    });
  }
});

test('half a character waits for the other half of the same part', () => {
  const outbox = new Outbox(0);
  outbox.add('a\ud83d', undefined);
  outbox.add('think\ud83d', THINK);
  outbox.add('\ude00b', undefined);
  outbox.close();
  assert.deepEqual(chunksOf(outbox), [
    { index: 0, chunk: 'a' },
    { index: 1, chunk: 'think', part: THINK },
    { index: 2, chunk: '😀b' },
    { index: 3, chunk: '\ufffd', part: THINK },
  ]);
});

test('batches and the outbox are bounded', () => {
  const many = new Outbox(0);
  for (let n = 0; n < WAITING_CHUNKS; n += 1) many.add('x', undefined);
  assert.equal(many.batch().length, BATCH_CHUNKS);
  assert.equal(many.isFull, false);
  many.add('x', undefined);
  assert.equal(many.isFull, true);
  many.acknowledge(1);
  assert.equal(many.isFull, false);
  const long = new Outbox(0);
  long.add('y'.repeat(WAITING_UNITS), undefined);
  assert.equal(long.isFull, false);
  assert.ok(joined(long.batch()).length <= BATCH_UNITS);
  long.add('y', undefined);
  assert.equal(long.isFull, true);
  long.discard();
  assert.deepEqual([long.isFull, long.batch()], [false, []]);
});

/** Chunks of a stream as the daemon has them, cut into events at random. */
function eventsOf(chunks, from, random) {
  const events = [];
  for (let at = from; at < chunks.length;) {
    const { part } = chunks[at];
    let end = at + 1;
    while (end < chunks.length && chunks[end].part === part && random() < 0.6) end += 1;
    const chunk = chunks
      .slice(at, end)
      .map(({ text }) => text)
      .join('');
    events.push({ chunk, first_index: at, index: end - 1, part });
    at = end;
  }
  return events;
}

/** The parts as `GET` shows them: in order, neighbours merged. */
function shown(chunks) {
  const parts = [];
  for (const { text, part } of chunks) {
    if (parts.length > 0 && parts.at(-1).part === part) parts.at(-1).text += text;
    else parts.push({ part, text });
  }
  return parts;
}

test('the text is exact over any cuts, repeats and changes of transport', () => {
  const random = seeded(6);
  const below = (n) => Math.floor(random() * n);
  const tool = { type: 'tool_input', id: 'call' };
  const answer = { type: 'text', id: 'answer' };
  for (let round = 0; round < 400; round += 1) {
    const wanted = round % 2 ? 'all' : 'text';
    const partsOf = wanted === 'all' ? [undefined, answer, THINK, tool] : [undefined, answer];
    const chunks = Array.from({ length: 1 + below(30) }, (_, n) => ({
      text: `${n}${'😀é'.repeat(below(2))},`,
      part: partsOf[below(partsOf.length)],
    }));
    const progress = new StreamProgress(wanted, true);
    const got = [];
    let live = 0; // chunks that exist so far
    let cursor = 0; // the chunk after the last event, or 0: from the start
    let received = 0;
    while (received < chunks.length) {
      live = Math.min(chunks.length, live + below(6));
      const there = chunks.slice(0, live);
      if (random() < 0.3) {
        const text = there.map(({ text }) => text).join('');
        const rest = Buffer.from(text).subarray(progress.textBytes).toString();
        if (wanted === 'all') got.push(...progress.snapshot(shown(there), false, live));
        else got.push(...progress.snapshot([{ text: rest }], true, live));
        cursor = 0;
        received = live;
        continue;
      }
      if (random() < 0.3) cursor = 0; // the cursor was lost
      progress.begin(cursor === 0 ? 'start' : 'cursor');
      for (const event of eventsOf(there, cursor, random)) {
        got.push(progress.chunk(event));
        if (random() < 0.2) got.push(progress.chunk(event)); // repeated
        cursor = event.index + 1;
        received = Math.max(received, cursor);
        if (random() < 0.2) break; // cut
      }
    }
    const pieces = got.filter((piece) => piece !== undefined);
    const textOf = (list, part) =>
      list
        .filter((one) => wanted === 'text' || one.part === part)
        .map(({ text }) => text)
        .join('');
    for (const part of partsOf) assert.equal(textOf(pieces, part), textOf(chunks, part), `round ${round}`);
  }
});

test('a reset forgets the text and tells it', () => {
  const progress = new StreamProgress('text', false);
  progress.begin('cursor');
  assert.deepEqual(progress.chunk({ chunk: 'x', index: 4 }), { text: 'x', index: 4, firstIndex: 4 });
  assert.equal(progress.canBeginAgain, false, 'what the consumer had before is not known');
  assert.deepEqual(progress.reset(), { text: '', index: 0, firstIndex: 0, reset: true });
  assert.deepEqual(progress.chunk({ chunk: 'new', first_index: 0, index: 1 }), { text: 'new', index: 1, firstIndex: 0 });
  assert.equal(progress.canBeginAgain, true);
  assert.equal(progress.textBytes, 3);
});

test('empty chunks and the final one are no pieces', () => {
  const progress = new StreamProgress('text', true);
  progress.begin('start');
  assert.equal(progress.chunk({ chunk: '', index: 0 }), undefined);
  assert.equal(progress.chunk({ chunk: 'a', index: 1 })?.text, 'a');
  assert.equal(progress.isEmpty, false);
});
