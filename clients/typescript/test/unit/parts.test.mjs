// Tests of the parts that use no network.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Backoff } from '../../dist/backoff.js';
import { Credential, GET_TOKEN_MOST_MS, RENEW_BEFORE_MS, RENEW_LEAST_MS, timesOf } from '../../dist/credential.js';
import { frameOf } from '../../dist/frames.js';
import { CLIMB_MOST_MS, CUT_SHORT, Ladder } from '../../dist/ladder.js';
import { Queue } from '../../dist/queue.js';
import { EVENT_MOST, SseParser } from '../../dist/sse.js';
import { ofClose, ofClosing, ofRefusal, repeatAfterMs } from '../../dist/verdict.js';
import { NervewireError } from '../../dist/errors.js';
import { seeded } from '../support/proxy.mjs';

const STREAM =
  '\ufeffretry: 2000\r\nevent: ready\rid: 1\ndata: {"a":1}\n\n: comment\nid: 2\r\ndata:x\r\ndata:  y\r\n\r\nevent: named\n\nid: 3\n\ndata\n\nunknown: z\nretry: 1x\ndata: end: of\n\nid: 4\ndata: cut off\n';
const MESSAGES = [
  { event: 'ready', data: '{"a":1}', id: '1' },
  { event: 'message', data: 'x\n y', id: '2' },
  { event: 'message', data: '', id: '3' },
  { event: 'message', data: 'end: of', id: '3' },
];

test('an event stream, in pieces of any size', () => {
  const whole = new SseParser();
  assert.deepEqual(whole.push(STREAM), MESSAGES);
  assert.equal(whole.retryMs, 2000);
  const random = seeded(2);
  for (let round = 0; round < 200; round += 1) {
    const parser = new SseParser();
    const got = [];
    for (let at = 0; at < STREAM.length;) {
      const size = Math.floor(random() * 6);
      got.push(...parser.push(STREAM.slice(at, at + size)));
      at += size;
    }
    assert.deepEqual(got, MESSAGES);
  }
});

test('lines and messages over the limit are refused', () => {
  const tooLarge = { code: 'TOO_LARGE' };
  assert.deepEqual(new SseParser().push('x'.repeat(EVENT_MOST)), []);
  assert.throws(() => new SseParser().push('x'.repeat(EVENT_MOST + 1)), tooLarge);
  const line = `data:${'x'.repeat(1 << 20)}\n`;
  const endless = new SseParser();
  assert.throws(() => {
    for (let n = 0; n < 10; n += 1) endless.push(line);
  }, tooLarge);
  const empty = new SseParser();
  assert.throws(() => {
    for (let n = 0; n < 10; n += 1) empty.push('data\n'.repeat(1 << 20));
  }, tooLarge);
  const several = new SseParser();
  for (let n = 0; n < 10; n += 1) assert.equal(several.push(`${line}\n`).length, 1, 'counted for each message');
});

test('waits double up to a limit, at least half of each', () => {
  const least = new Backoff(100, 1000, () => 0);
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6].map(() => least.next()),
    [50, 100, 200, 400, 500, 500],
  );
  const most = new Backoff(100, 1000, () => 0.9999);
  assert.ok(most.next() < 100);
  assert.ok(most.next(5000) >= 5000, 'what was asked for is kept');
  assert.ok(most.next(5000) <= 6250);
  most.reset();
  assert.ok(most.next() < 100);
});

test('the transport falls back after failed, delayed or short connections', () => {
  const bad = { ready: false, livedMs: 5 };
  const ladder = new Ladder(['ws', 'sse', 'poll'], 1000);
  assert.equal(ladder.ended(bad, 0), false);
  assert.equal(ladder.ended({ ready: true, livedMs: 60_000 }, 0), false);
  assert.equal(ladder.ended(bad, 0), false);
  assert.equal(ladder.ended({ ...bad, neutral: true }, 0), false);
  assert.equal(ladder.ended(bad, 0), false, 'the daemon spoke in between');
  assert.equal(ladder.ended(bad, 0), true);
  assert.equal(ladder.transport, 'sse');
  assert.equal(ladder.ended({ ...bad, heldBack: true }, 500), true);
  assert.equal(ladder.transport, 'poll');
  assert.equal(ladder.ended({ ...bad, heldBack: true }, 500), false, 'there is nothing below');
  assert.equal(ladder.begin(999), 'poll');
  assert.equal(ladder.begin(1000), 'ws', 'counted from when it left the best');
  for (let n = 1; n < CUT_SHORT; n += 1) assert.equal(ladder.ended({ ready: true, livedMs: 10 }, 1000), false);
  assert.equal(ladder.ended({ ready: true, livedMs: 10 }, 1000), true);
  assert.equal(ladder.climbAt, 3000, 'twice as long after it failed');
  let now = ladder.climbAt;
  for (let n = 0; n < 20; n += 1) {
    ladder.begin(now);
    ladder.fall(now);
    assert.ok(ladder.climbAt - now <= CLIMB_MOST_MS);
    now = ladder.climbAt;
  }
});

test('the queue keeps order, reports when half is free, and ends once', async () => {
  const queue = new Queue(4);
  const waiting = queue.next();
  assert.equal(queue.push({ n: 0 }), true);
  assert.deepEqual(await waiting, { done: false, value: { n: 0 } });
  for (const n of [1, 2, 3, 4]) assert.equal(queue.push({ n }), false);
  assert.equal(queue.room, 0);
  let isDrained = false;
  const drained = queue.drained().then(() => (isDrained = true));
  assert.equal(queue.take().n, 1);
  await Promise.resolve();
  assert.equal(isDrained, false);
  assert.equal(queue.take().n, 2);
  await drained;
  queue.end(new Error('over'));
  queue.push({ n: 9 });
  assert.equal((await queue.next()).value.n, 3);
  assert.equal((await queue.next()).value.n, 4);
  await assert.rejects(queue.next(), /over/);
  assert.deepEqual(await queue.next(), { done: true, value: undefined });
  const dropped = new Queue(4);
  dropped.push({ n: 1 });
  dropped.discard();
  assert.equal((await dropped.next()).done, true);
  const pair = new Queue(4);
  const both = Promise.allSettled([pair.next(), pair.next()]);
  pair.end(new Error('over'));
  assert.deepEqual(
    (await both).map((one) => one.status),
    ['rejected', 'fulfilled'],
  );
});

test('frames: an event has an id; unknown frames are ignored', () => {
  assert.equal(frameOf('{"type":"error","id":"x","code":"C","message":"m"}').kind, 'event');
  assert.equal(frameOf('{"type":"error","code":"C","message":"m","ref":1}').kind, 'error');
  assert.deepEqual(frameOf('{"type":"ready","cursor":"c","resumed":true,"replaying":3,"heartbeat_seconds":15}'), {
    kind: 'ready',
    cursor: 'c',
    resumed: true,
    replaying: 3,
    heartbeatMs: 15_000,
    ref: undefined,
  });
  assert.equal(frameOf('{"type":"ready","cursor":"c"}').heartbeatMs, 30_000);
  for (const type of ['ping', 'heartbeat'])
    assert.deepEqual(frameOf(`{"type":"${type}","cursor":"c"}`), { kind: 'cursor', cursor: 'c' });
  for (const other of ['{}', '[]', '{"type":"novelty","cursor":"c"}', '{"type":"pong"}'])
    assert.equal(frameOf(other).kind, 'other');
  for (const bad of ['', '1', 'null', '{']) assert.throws(() => frameOf(bad), SyntaxError);
});

// The Rust client is tested against the same file.
const VERDICTS = JSON.parse(readFileSync(new URL('../../../rust/tests/verdicts.json', import.meta.url), 'utf8'));
const rowsOf = (table) => {
  const rows = Object.entries(VERDICTS[table]);
  assert.ok(rows.length > 5, table);
  return rows;
};
const wanted = (table, verdict) => {
  switch (verdict) {
    case 'end':
      return ['stop', undefined];
    case 'again':
      return ['reconnect', undefined];
    case 'later':
      return ['reconnect', VERDICTS.later_ms[table]];
    case 'credential':
      return ['renew', undefined];
    default:
      throw new Error(verdict);
  }
};
const verdictOf = ({ verdict, afterMs }) => [verdict, afterMs];

test('verdicts: close codes of a WebSocket', () => {
  for (const [row, verdict] of rowsOf('close')) {
    const code = row === 'other' ? 4999 : Number(row);
    assert.deepEqual(verdictOf(ofClose(code, '')), wanted('close', verdict), row);
  }
  assert.equal(ofClose(1006, '').error.code, 'NETWORK');
});

test('verdicts: closing frames of an event stream', () => {
  for (const [row, verdict] of rowsOf('closing')) {
    assert.deepEqual(verdictOf(ofClosing(row, 'm', undefined)), wanted('closing', verdict), row);
    const asked = ofClosing(row, 'm', 70);
    if (asked.verdict === 'reconnect') assert.equal(asked.afterMs, 70, row);
  }
});

test('verdicts: HTTP statuses of refusals', () => {
  const refusal = (status, retryAfterMs, code = 'C') => new NervewireError(code, 'm', { status, retryAfterMs });
  for (const [row, verdict] of rowsOf('status')) {
    const status = row === 'other' ? 418 : Number(row);
    const [is, afterMs] = wanted('status', verdict);
    const repeats = is === 'reconnect';
    assert.deepEqual(verdictOf(ofRefusal(refusal(status))), [is, afterMs], row);
    assert.equal(repeatAfterMs(refusal(status)), repeats ? (afterMs ?? 0) : undefined, row);
    if (repeats) {
      assert.deepEqual(verdictOf(ofRefusal(refusal(status, 7000))), [is, 7000], row);
      assert.equal(repeatAfterMs(refusal(status, 7000)), 7000, row);
      assert.equal(ofRefusal(refusal(status, 7000, 'NOT_NERVEWIRE')).verdict, is, 'whoever says so: it passes');
    }
  }
  const inBetween = (status) => ofRefusal(refusal(status, undefined, 'NOT_NERVEWIRE')).verdict;
  assert.deepEqual([200, 400, 404].map(inBetween), Array(3).fill('fall'), 'something in between speaks');
  const lost = new NervewireError('NETWORK', 'm');
  assert.deepEqual([verdictOf(ofRefusal(lost)), repeatAfterMs(lost)], [['reconnect', undefined], 0]);
  assert.equal(ofRefusal(new NervewireError('TOO_LARGE', 'm')).verdict, 'stop', 'it would meet the same again');
});

test("a token's expiry is read from it or given", async () => {
  const jwt = (claims) => `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.sig`;
  assert.deepEqual(timesOf(jwt({ exp: 12, iat: 3, sub: '\u00fc?>~' })), { exp: 12_000, iat: 3000 });
  for (const other of ['nwk_a_b', 'a.b.c', jwt({}), jwt({ exp: 'x' }), jwt(null)])
    assert.deepEqual(timesOf(other), { exp: undefined, iat: undefined });
  const now = Date.now();
  const renewal = async (got) => {
    const credential = Credential.of({ getToken: async () => got });
    await credential.current();
    return credential.renewAt === undefined ? undefined : credential.renewAt - now;
  };
  const near = (value, wanted) => assert.ok(Math.abs(value - wanted) < 2000, `${value} is not near ${wanted}`);
  near(await renewal(jwt({ exp: now / 1000 + 3600 })), 3_600_000 - RENEW_BEFORE_MS);
  near(await renewal({ token: 't', expiresAt: new Date(now + 100_000) }), 80_000);
  near(await renewal({ token: 't', expiresAt: new Date(now + 3_600_000).toISOString() }), 3_600_000 - RENEW_BEFORE_MS);
  near(await renewal({ token: jwt({ exp: now / 1000 + 10 }), expiresAt: now + 3_600_000 }), 3_600_000 - RENEW_BEFORE_MS);
  assert.equal(await renewal('nwk_a_b'), undefined);
  const second = Math.floor(now / 1000);
  near(await renewal(jwt({ iat: second - 3000, exp: second + 600 })), 600_000 - RENEW_BEFORE_MS); // received late in its life
  near(await renewal(jwt({ iat: second + 7200, exp: second + 7300 })), 80_000); // the local clock is behind
  near(await renewal(jwt({ iat: second - 7200, exp: second - 3600 })), 3_600_000 - RENEW_BEFORE_MS); // the local clock is ahead
  for (const ended of [jwt({ exp: second - 9 }), { token: 't', expiresAt: now - 1 }])
    assert.equal(await renewal(ended), undefined, 'the daemon will say so if it is true');
  for (const short of [jwt({ exp: second + 2 }), { token: 't', expiresAt: now + 999 }, jwt({ iat: second, exp: second + 1 })])
    assert.ok((await renewal(short)) >= RENEW_LEAST_MS, 'never without a pause');
  await assert.rejects(renewal(''), TypeError);
});

test('a token that expires at once is not fetched in a loop', async (t) => {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'], now: 1_000_000_000 });
  let asked = 0;
  const credential = Credential.of({ getToken: async () => ({ token: `t${(asked += 1)}`, expiresAt: Date.now() + 1 }) });
  for (let n = 0; n < 100; n += 1) {
    await credential.current();
    t.mock.timers.tick(10);
  }
  assert.equal(asked, 1);
  t.mock.timers.tick(RENEW_LEAST_MS - 1000);
  assert.equal(await credential.current(), 't2');
  credential.refused('t2');
  assert.equal(await credential.current(), 't3', 'a refusal is no guess');
});

test('getToken that does not resolve times out and is called again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let asked = 0;
  const credential = Credential.of({ getToken: () => ((asked += 1) === 1 ? new Promise(() => {}) : Promise.resolve('t')) });
  const late = assert.rejects(credential.current(), { code: 'TIMEOUT' });
  t.mock.timers.tick(GET_TOKEN_MOST_MS - 1);
  t.mock.timers.tick(1);
  await late;
  assert.equal(await credential.current(), 't');
});
