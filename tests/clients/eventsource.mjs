// Tests npm `eventsource`: it receives live events, and reconnects by itself with `Last-Event-ID` after the
// network fails and the daemon is killed with `kill -9`.
import assert from 'node:assert/strict';
import { EventSource } from 'eventsource';
import { direct, Inbox, key, proxied, publish, stage, tell } from './story.mjs';

const channel = 'clients/eventsource';

class Source {
  messages = new Inbox();
  named = new Inbox();
  sentIds = [];

  constructor(base) {
    this.source = new EventSource(`${base}/api/v1/sse?channel=${encodeURIComponent(channel)}`, {
      fetch: (url, init) => {
        this.sentIds.push(init.headers['Last-Event-ID'] ?? null);
        return fetch(url, { ...init, headers: { ...init.headers, authorization: `Bearer ${key}` } });
      },
    });
    this.source.onmessage = (message) => this.messages.push(message);
    for (const name of ['ready', 'caught_up', 'gap', 'closing']) {
      this.source.addEventListener(name, (message) => this.named.push({ name, ...JSON.parse(message.data) }));
    }
  }

  async values(ids) {
    const messages = await this.messages.take(ids.length, 'messages');
    assert.deepEqual(messages.map((message) => message.lastEventId), ids);
    return messages.map((message) => {
      const event = JSON.parse(message.data);
      assert.equal(event.id, message.lastEventId);
      return event.data.n;
    });
  }
}

await tell('eventsource', {
  'events published over REST arrive in order as unnamed messages, after ready': async () => {
    const source = new Source(direct);
    assert.equal((await source.named.next('ready')).name, 'ready');
    const ids = await publish(channel, [1, 2, 3]);
    assert.deepEqual(await source.values(ids), [1, 2, 3]);
    source.source.close();
  },

  'text that looks like SSE syntax arrives unchanged': async () => {
    const source = new Source(direct);
    await source.named.next('ready');
    const hostile = ['a\r\nid: 9\r\n\r\ndata: x', '\n\nevent: closing\ndata: {}\n\n', '\u2028\u0000\ufeff', ': comment'];
    const ids = await publish(channel, hostile);
    assert.deepEqual(await source.values(ids), hostile);
    source.source.close();
  },

  'after a cut and kill -9 it reconnects by itself and receives exactly the missed events, then live events': async () => {
    const source = new Source(proxied);
    await source.named.next('ready');
    const seen = await publish(channel, ['a', 'b']);
    assert.deepEqual(await source.values(seen), ['a', 'b']);
    await stage('cut');
    const missed = await publish(channel, ['c', 'd']);
    await stage('restart');
    missed.push(...(await publish(channel, ['e', 'f'])));
    await stage('release');

    assert.deepEqual(await source.values(missed), ['c', 'd', 'e', 'f']);
    assert.equal(source.sentIds.at(-1), seen.at(-1));
    assert.equal((await source.named.next('ready')).name, 'ready');
    assert.equal((await source.named.next('caught_up')).name, 'caught_up');
    const live = await publish(channel, ['g']);
    assert.deepEqual(await source.values(live), ['g']);
    assert.equal(source.messages.items.length, 0, 'no event is repeated');
    source.source.close();
  },
});
