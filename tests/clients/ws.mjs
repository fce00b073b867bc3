// Tests npm `ws`: live events, JSON ping, publishing, a refused credential, closing, and resume with
// `last_event_id` after the network fails and the daemon is killed with `kill -9`.
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { api, direct, Inbox, key, proxied, publish, stage, tell } from './story.mjs';

const channel = 'clients/ws';

class Socket {
  frames = new Inbox();
  closed = new Inbox();

  constructor(base, query = {}) {
    const url = `${base.replace('http', 'ws')}/api/v1/ws?${new URLSearchParams({ channel, ...query })}`;
    this.ws = new WebSocket(url, { headers: { authorization: `Bearer ${key}` }, perMessageDeflate: true });
    this.ws.on('message', (data, binary) => {
      assert.equal(binary, false, 'frames are text');
      this.frames.push(JSON.parse(data));
    });
    this.ws.on('error', () => {}); // 'close' follows for a refused or reset connection
    this.ws.on('close', (code) => this.closed.push(code));
  }

  send(frame) {
    this.ws.send(JSON.stringify(frame));
  }

  /** Returns the next frame, which must be of this type. Heartbeats are skipped. */
  async expect(type) {
    for (;;) {
      const frame = await this.frames.next(type);
      if (frame.type === 'ping' && type !== 'ping') continue;
      assert.equal(frame.type, type, JSON.stringify(frame));
      return frame;
    }
  }

  async values(ids) {
    const values = [];
    for (const id of ids) {
      const event = await this.expect('custom');
      assert.equal(event.id, id);
      values.push(event.data.n);
    }
    return values;
  }

  async close() {
    this.ws.close(1000);
    return this.closed.next('close');
  }
}

await tell('ws', {
  'events published over REST arrive in order, after ready': async () => {
    const socket = new Socket(direct);
    const ready = await socket.expect('ready');
    assert.equal(typeof ready.connection_id, 'string');
    assert.equal(ready.resumed, false);
    const ids = await publish(channel, [1, 2, 3]);
    assert.deepEqual(await socket.values(ids), [1, 2, 3]);
    assert.equal(await socket.close(), 1000);
  },

  'a JSON ping is answered by a JSON pong, a protocol ping by a protocol pong': async () => {
    const socket = new Socket(direct);
    await socket.expect('ready');
    socket.send({ type: 'ping', timestamp: new Date().toISOString() });
    await socket.expect('pong');
    const pongs = new Inbox();
    socket.ws.on('pong', (payload) => pongs.push(payload.toString()));
    socket.ws.ping('are you there');
    assert.equal(await pongs.next('protocol pong'), 'are you there');
    await socket.close();
  },

  'a publish over the socket is acknowledged and arrives as a live event': async () => {
    const socket = new Socket(direct);
    await socket.expect('ready');
    socket.send({ type: 'publish', ref: 7, event: { type: 'custom', channel, data: { n: 'mine' } } });
    const two = [await socket.frames.next('ack or event'), await socket.frames.next('ack or event')];
    const ack = two.find((frame) => frame.type === 'ack');
    const event = two.find((frame) => frame.type === 'custom');
    assert.equal(ack?.ref, 7);
    assert.deepEqual(ack.ids, [event.id]);
    assert.equal(event.data.n, 'mine');
    await socket.close();
  },

  'after a cut and kill -9, a client with last_event_id receives exactly the missed events, then live events': async () => {
    const before = new Socket(proxied);
    await before.expect('ready');
    const seen = await publish(channel, ['a', 'b']);
    assert.deepEqual(await before.values(seen), ['a', 'b']);
    await stage('cut');
    assert.equal(await before.closed.next('the cut'), 1006);
    const missed = await publish(channel, ['c', 'd']);
    await stage('restart');
    missed.push(...(await publish(channel, ['e', 'f'])));
    await stage('release');

    const after = new Socket(proxied, { last_event_id: seen.at(-1) });
    const ready = await after.expect('ready');
    assert.equal(ready.resumed, true);
    assert.deepEqual(await after.values(missed), ['c', 'd', 'e', 'f']);
    await after.expect('caught_up');
    const live = await publish(channel, ['g']);
    assert.deepEqual(await after.values(live), ['g']);
    assert.equal(await after.close(), 1000);
    assert.deepEqual(after.frames.items.filter((frame) => frame.type === 'custom'), [], 'no event is repeated');
  },

  'a bad credential gets 401 before the upgrade': async () => {
    const ws = new WebSocket(`${direct.replace('http', 'ws')}/api/v1/ws`, { headers: { authorization: 'Bearer nwk_x_y' } });
    const answers = new Inbox();
    ws.on('unexpected-response', (_, response) => answers.push(response));
    ws.on('open', () => answers.push({ statusCode: 101 }));
    ws.on('error', () => {});
    const response = await answers.next('the refusal');
    assert.equal(response.statusCode, 401);
    assert.ok(response.headers['www-authenticate']);
  },

  'a kicked connection is closed with 4403': async () => {
    const socket = new Socket(direct);
    const { connection_id } = await socket.expect('ready');
    await api('DELETE', `/api/v1/connections/${connection_id}`);
    assert.equal(await socket.closed.next('the kick'), 4403);
  },
});
