// Shared helpers of the Node clients: they call the daemon's REST API and the control server of the test, and
// wait with a timeout.
import assert from 'node:assert/strict';

export const { NERVEWIRE_URL: direct, NERVEWIRE_PROXY: proxied, NERVEWIRE_KEY: key, STAGE: stageUrl } = process.env;

const LIMIT_MS = 20_000;

export async function api(method, path, body) {
  const response = await fetch(direct + path, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body !== undefined && { 'content-type': 'application/json' }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

/** Publishes one `custom` event per value in one request, and returns the ids. */
export async function publish(channel, values) {
  const events = values.map((n) => ({ type: 'custom', channel, data: { n } }));
  return (await api('POST', '/api/v1/events', events)).data.ids;
}

export async function stage(action) {
  const response = await fetch(`${stageUrl}/${action}`, { method: 'POST' });
  assert.equal(response.status, 200, `stage ${action}: ${await response.text()}`);
}

/** A queue of received items. `next` removes the oldest item, and waits for one if there is none. */
export class Inbox {
  items = [];
  #waiting = [];

  push(item) {
    this.items.push(item);
    this.#waiting.forEach((wake) => wake());
    this.#waiting = [];
  }

  async next(what) {
    const end = Date.now() + LIMIT_MS;
    while (this.items.length === 0) {
      const left = end - Date.now();
      assert.ok(left > 0, `nothing arrived within ${LIMIT_MS} ms: ${what}`);
      let timer;
      await Promise.race([
        new Promise((wake) => this.#waiting.push(wake)),
        new Promise((wake) => { timer = setTimeout(wake, left); }),
      ]);
      clearTimeout(timer);
    }
    return this.items.shift();
  }

  async take(count, what) {
    const taken = [];
    while (taken.length < count) taken.push(await this.next(`${what} (${taken.length} of ${count} arrived)`));
    return taken;
  }
}

/**
 * Runs the named stories one after another. The first failure ends the program. `leave` runs before the
 * program ends.
 */
export async function tell(client, stories, leave = () => {}) {
  for (const [name, story] of Object.entries(stories)) {
    try {
      await story();
    } catch (failure) {
      console.log(`not ok ${client}: ${name}\n${failure.stack}`);
      await leave();
      process.exit(1);
    }
    console.log(`ok ${client}: ${name}`);
  }
  await leave();
  process.exit(0);
}
