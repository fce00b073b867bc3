import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StreamText, TextAccumulator } from 'nervewire';
import { PLACES_MOST, STREAMS_MOST, TEXT_MOST } from '../../dist/text.js';
import { seeded } from '../support/proxy.mjs';

const chunk = (text, more = {}) => ({
  type: 'stream_chunk',
  id: 'x',
  request_id: 'r',
  chunk: text,
  is_final: false,
  timestamp: '',
  ...more,
});

test('chunks without an index are joined as they come', () => {
  const stream = new StreamText('r');
  assert.deepEqual(
    [chunk('a'), chunk('a'), chunk('b', { is_final: true }), chunk('late')].map((one) => stream.push(one)),
    ['a', 'a', 'b', ''],
  );
  assert.deepEqual(stream.state, { requestId: 'r', text: 'aab', done: true, error: undefined, incomplete: false });
});

test('a repeated index adds nothing, a skipped one is reported', () => {
  const stream = new StreamText('r');
  for (const [index, text] of [
    [0, 'a'],
    [1, 'b'],
    [1, 'b'],
    [0, 'a'],
  ])
    stream.push(chunk(text, { index }));
  assert.equal(stream.state.text, 'ab');
  assert.equal(stream.state.incomplete, false);
  stream.push(chunk('d', { index: 3 }));
  assert.equal(stream.state.text, 'abd');
  assert.equal(stream.state.incomplete, true);
});

test('reasoning is no text, and its numbers are not missing', () => {
  const stream = new StreamText('r');
  const think = { type: 'reasoning', id: 'think' };
  assert.equal(stream.push(chunk('a', { index: 0 })), 'a');
  assert.equal(stream.push(chunk('hm', { index: 1, part: think })), '');
  assert.equal(stream.push(chunk('b', { index: 2, part: { type: 'text', id: 't' } })), 'b');
  assert.deepEqual([stream.state.text, stream.state.incomplete], ['ab', false]);
});

test('a merged chunk counts as all its chunks', () => {
  const stream = new StreamText('r');
  assert.equal(stream.push(chunk('abc', { first_index: 0, index: 2 })), 'abc');
  assert.equal(stream.push(chunk('b', { index: 1 })), '');
  assert.equal(stream.push(chunk('de', { first_index: 3, index: 4, is_final: true })), 'de');
  assert.deepEqual([stream.state.text, stream.state.incomplete], ['abcde', false]);
});

test('a merged repeat adds only the missing text', () => {
  const stream = new StreamText('r');
  for (const [index, text] of [
    [0, 'one '],
    [1, 'two '],
    [2, 'three '],
  ])
    stream.push(chunk(text, { index }));
  assert.equal(stream.push(chunk('two three four', { first_index: 1, index: 3 })), 'four');
  assert.deepEqual([stream.state.text, stream.state.incomplete], ['one two three four', false]);
});

test('a text is complete however its chunks are split, merged and repeated', () => {
  const random = seeded(1);
  const below = (n) => Math.floor(random() * n);
  for (let round = 0; round < 300; round += 1) {
    const pieces = Array.from({ length: 1 + below(12) }, (_, n) => `${n},`.repeat(below(3)));
    const stream = new StreamText('r');
    const begun = [];
    let added = '';
    for (let at = 0; at < pieces.length;) {
      // A repeat begins where a chunk began.
      const first = begun.length > 0 && random() < 0.4 ? begun[below(begun.length)] : at;
      const end = Math.min(pieces.length, at + 1 + below(3));
      added += stream.push(
        chunk(pieces.slice(first, end).join(''), { first_index: first, index: end - 1, is_final: end === pieces.length }),
      );
      begun.push(first);
      at = end;
    }
    assert.deepEqual(stream.state, { requestId: 'r', text: pieces.join(''), done: true, error: undefined, incomplete: false });
    assert.equal(added, pieces.join(''));
  }
});

test('an error that names the stream ends it', () => {
  const stream = new StreamText('r');
  stream.push(chunk('a'));
  assert.equal(stream.push({ type: 'error', id: 'x', code: 'C', message: 'm', request_id: 'other', timestamp: '' }), '');
  assert.equal(stream.state.done, false);
  stream.push({ type: 'error', id: 'x', code: 'C', message: 'm', request_id: 'r', timestamp: '' });
  assert.deepEqual([stream.state.text, stream.state.done, stream.state.error], ['a', true, { code: 'C', message: 'm' }]);
});

test('a text and its chunk positions are bounded', () => {
  const stream = new StreamText('r');
  const half = 'x'.repeat(TEXT_MOST / 2 + 1);
  stream.push(chunk(half));
  assert.equal(stream.push(chunk(half)).length, TEXT_MOST / 2 - 1);
  assert.deepEqual([stream.state.text.length, stream.state.incomplete], [TEXT_MOST, true]);
  const many = new StreamText('r');
  for (let index = 0; index <= PLACES_MOST; index += 1) many.push(chunk('y', { index }));
  assert.equal(many.push(chunk('yyz', { first_index: 0, index: PLACES_MOST + 1 })), '', 'too old to be laid over');
  assert.equal(many.state.incomplete, true);
});

test('an accumulator separates streams and removes the oldest', () => {
  const all = new TextAccumulator();
  assert.equal(all.push({ type: 'custom', id: 'x', channel: 'c', data: 1, timestamp: '' }), undefined);
  all.push(chunk('a', { request_id: 'one' }));
  const state = all.push(chunk('b', { request_id: 'two', is_final: true }));
  assert.deepEqual([state.delta, state.text, state.done], ['b', 'b', true]);
  assert.equal(all.get('one').text, 'a');
  for (let n = 0; n < STREAMS_MOST - 1; n += 1) all.push(chunk('c', { request_id: `more ${n}` }));
  assert.equal(all.get('two'), undefined, 'finished ones first');
  assert.equal(all.get('one').text, 'a');
  all.push(chunk('d', { request_id: 'the last' }));
  assert.equal(all.get('one'), undefined, 'then the oldest');
  all.forget('the last');
  assert.equal(all.get('the last'), undefined);
});
