// Tokens that expire and are renewed, tickets, revocation: on every transport, against the real daemon.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { NervewireError } from 'nervewire';
import { Daemon } from './support/daemon.mjs';
import { Proxy } from './support/proxy.mjs';
import { clientOf, Inbox, take, within } from './support/story.mjs';

describe('credentials', () => {
  let daemon;
  before(async () => (daemon = await Daemon.start()));
  after(() => daemon?.stop());

  it('a WebSocket is opened with a ticket: no credential is ever in a URL', async () => {
    const proxy = await Proxy.before(daemon.port);
    const client = clientOf({ url: proxy.url, key: daemon.key });
    try {
      for (const transport of ['ws', 'sse', 'poll']) {
        const one = clientOf({ url: proxy.url, key: daemon.key }, { transport });
        await within(one.subscribe().ready, `ready over ${transport}`);
        one.close();
      }
      await client.publish({ type: 'custom', channel: 'x', data: 1 });
      assert.ok(
        proxy.paths.some((path) => /^\/api\/v1\/ws\?ticket=nwt1_/.test(path)),
        proxy.paths.join(' '),
      );
      for (const path of proxy.paths) assert.ok(!path.includes(daemon.key) && !/[?&]token=/.test(path), path);
    } finally {
      client.close();
      await proxy.close();
    }
  });

  it('a WebSocket renews its token before it expires', async () => {
    const sent = new Inbox();
    class Overheard extends WebSocket {
      send(data) {
        sent.push(JSON.parse(data));
        super.send(data);
      }
    }
    let asked = 0;
    const getToken = async () => {
      asked += 1;
      return asked === 1 ? daemon.token('alice', { expires_in_seconds: 8 }) : daemon.token('alice', { expires_in_seconds: 3600 });
    };
    const states = [];
    const client = clientOf(daemon, { getToken, transport: 'ws', WebSocket: Overheard });
    const events = client.subscribe({ channel: 'renewed', onStatus: (status) => states.push(status.state) });
    await within(events.ready, 'ready');
    const auth = await sent.find((frame) => frame.type === 'auth', 'auth');
    assert.equal(asked, 2);
    // A connection without another token is closed when the first one expires.
    const short = clientOf(daemon, {
      token: await daemon.token('alice', { expires_in_seconds: 3 }),
      transport: 'ws',
    }).subscribe();
    await assert.rejects(within(short.next(), 'the end'), { code: 'UNAUTHORIZED', closeCode: 4401 });
    await daemon.publish('renewed', [1]);
    assert.equal((await take(events, 1))[0].data.n, 1);
    assert.deepEqual(states, ['connecting', 'open'], 'the same connection all the time');
    assert.match(auth.token, /^ey/);
    client.close();
  });

  for (const transport of ['ws', 'sse', 'poll']) {
    it(`${transport}: an expired token is replaced without losing an event`, async () => {
      const channel = `ended/${transport}`;
      let asked = 0;
      // The token claims to be valid for an hour, so the client renews it only because the daemon refuses it.
      const getToken = async () => {
        asked += 1;
        return {
          token: await daemon.token('bob', { expires_in_seconds: asked === 1 ? 2 : 3600 }),
          expiresAt: Date.now() + 3_600_000,
        };
      };
      const states = new Inbox();
      const client = clientOf(daemon, { getToken, transport, timing: { pollWaitSeconds: 5 } });
      const events = client.subscribe({ channel, onStatus: states.push });
      await within(events.ready, 'ready');
      await daemon.publish(channel, [1]);
      assert.equal((await take(events, 1))[0].data.n, 1);
      states.items = [];
      await states.find((status) => status.state === 'open', 'open again');
      await daemon.publish(channel, [2]);
      assert.equal((await take(events, 1))[0].data.n, 2);
      assert.equal(asked, 2);
      client.close();
    });

    it(`${transport}: a credential that stays invalid ends the subscription after one renewal`, async () => {
      let asked = 0;
      const client = clientOf(daemon, { getToken: async () => `nobody-${(asked += 1)}`, transport });
      const events = client.subscribe();
      await assert.rejects(within(events.next(), 'the end'), { code: 'UNAUTHORIZED', status: 401 });
      assert.equal(asked, 2);
      assert.equal(events.status.state, 'closed');
      await assert.rejects(events.ready, { code: 'UNAUTHORIZED' });
    });

    it(`${transport}: a revoked fixed credential ends the subscription at once`, async () => {
      const { api_key, key_id } = await daemon.api('POST', '/api-keys', { scopes: ['subscribe'] });
      const states = [];
      const client = clientOf(daemon, { apiKey: api_key, transport, timing: { pollWaitSeconds: 5 } });
      const events = client.subscribe({ onStatus: (status) => states.push(status.state) });
      await within(events.ready, 'ready');
      await daemon.api('DELETE', `/api-keys/${key_id}`);
      const codes = transport === 'poll' ? 'UNAUTHORIZED' : 'FORBIDDEN';
      await assert.rejects(within(events.next(), 'the end'), { code: codes });
      assert.deepEqual(states, ['connecting', 'open', 'closed']);
      assert.deepEqual(await events.next(), { done: true, value: undefined }, 'reported once');
    });

    it(`${transport}: getToken that fails is called again`, async () => {
      let asked = 0;
      const getToken = async () => {
        asked += 1;
        if (asked < 3) throw new Error('the login page is down');
        return daemon.token('carol');
      };
      const states = new Inbox();
      const client = clientOf(daemon, { getToken, transport });
      await within(client.subscribe({ onStatus: states.push }).ready, 'ready');
      assert.equal(states.items.find((status) => status.state === 'waiting').error.message, 'the login page is down');
      client.close();
    });
  }

  it('REST: a 401 is followed by one attempt with a new token', async () => {
    const tokens = ['nobody', await daemon.token('dora', { scopes: ['publish', 'subscribe'] })];
    const client = clientOf(daemon, { getToken: async () => tokens.shift() ?? 'nobody' });
    assert.equal((await client.publish({ type: 'custom', channel: 'rest', data: 1 })).length, 1);
    const other = clientOf(daemon, { getToken: async () => 'nobody' });
    await assert.rejects(
      other.publish({ type: 'custom', channel: 'rest', data: 1 }),
      (error) => error instanceof NervewireError && error.status === 401 && error.requestId !== undefined,
    );
  });

  it('concurrent requests share one getToken', async () => {
    let asked = 0;
    const getToken = async () => {
      asked += 1;
      return daemon.token('erin', { scopes: ['publish'] });
    };
    const client = clientOf(daemon, { getToken });
    await Promise.all([1, 2, 3].map((data) => client.publish({ type: 'custom', channel: 'shared', data })));
    assert.equal(asked, 1);
  });

  it('a reconnect ticket is for EventSource', async () => {
    const ticket = await clientOf(daemon).ticket({ reconnect: true });
    const response = await fetch(`${daemon.url}/api/v1/events?ticket=${ticket}`);
    assert.equal(response.status, 200);
    assert.match(await clientOf(daemon).ticket(), /^nwt1_/);
  });

  it('exactly one credential is required', () => {
    assert.throws(() => clientOf(daemon, { token: 'a', apiKey: 'b' }), TypeError);
    assert.throws(() => clientOf({ url: daemon.url, key: undefined }, {}), TypeError);
    assert.throws(() => clientOf({ url: `${daemon.url}/?token=x`, key: 'k' }), TypeError);
  });
});
