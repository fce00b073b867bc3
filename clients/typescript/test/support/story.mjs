// Shared helpers of the tests: clients of a daemon, a wait with a limit, and lists to wait on.
import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import { Nervewire } from 'nervewire';

/** Longest wait for anything, milliseconds. */
export const LIMIT_MS = Number(process.env.STORY_LIMIT_MS ?? 30_000);

/** A client that reconnects quickly, to keep the tests short. */
export function clientOf(base, options = {}) {
  const credential = options.token || options.getToken || options.apiKey ? {} : { apiKey: base.key };
  return new Nervewire({ url: base.url, WebSocket, backoff: { leastMs: 1, mostMs: 20 }, ...credential, ...options });
}

/** Waits for `promise`. Fails with `what` if it takes too long. */
export async function within(promise, what, limitMs = LIMIT_MS) {
  let timer;
  const late = new Promise(
    (_, failed) =>
      (timer = setTimeout(() => failed(new assert.AssertionError({ message: `not within ${limitMs} ms: ${what}` })), limitMs)),
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until `fits` returns true. */
export function until(fits, what) {
  const turns = async () => {
    while (!fits()) await new Promise(setImmediate);
  };
  return within(turns(), what);
}

/** The next `count` items of an async iterator. */
export async function take(iterator, count, what = 'items') {
  const items = [];
  const all = (async () => {
    while (items.length < count) {
      const { done, value } = await iterator.next();
      assert.ok(!done, `it ended after ${items.length} of ${count} ${what}`);
      items.push(value);
    }
  })();
  await within(all, `${count} ${what}`).catch((failure) => {
    failure.message += ` (${items.length} came)`;
    throw failure;
  });
  return items;
}

/** Compares long texts, and shows where they begin to differ. */
export function sameText(text, wanted) {
  if (text === wanted) return;
  let at = 0;
  while (text[at] === wanted[at]) at += 1;
  const around = (one) => JSON.stringify(one.slice(Math.max(0, at - 20), at + 60));
  assert.fail(`at ${at} of ${wanted.length} (got ${text.length}): ${around(text)}, not ${around(wanted)}`);
}

/** A list to wait on. */
export class Inbox {
  items = [];
  #looking = [];

  push = (item) => {
    this.items.push(item);
    this.#looking = this.#looking.filter((look) => !look());
  };

  /** Returns the first item that matches, including items that are already in the list. */
  find(fits, what = 'an item') {
    return within(
      new Promise((done) => {
        const look = () => {
          const item = this.items.find(fits);
          if (item !== undefined) done(item);
          return item !== undefined;
        };
        if (!look()) this.#looking.push(look);
      }),
      what,
    );
  }
}
