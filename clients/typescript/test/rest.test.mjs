// Publishing and the resources, against the real daemon.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { etagOf, login, NervewireError } from 'nervewire';
import { Daemon } from './support/daemon.mjs';
import { Proxy } from './support/proxy.mjs';
import { clientOf, take, within } from './support/story.mjs';

describe('publishing', () => {
  let daemon, client;
  before(async () => {
    daemon = await Daemon.start();
    client = clientOf(daemon);
  });
  after(() => daemon?.stop());
  const custom = (data) => ({ type: 'custom', channel: 'publishing', data });

  it('one event and several; ids are cursors', async () => {
    const [first] = await client.publish(custom(1));
    const rest = await client.publish([custom(2), custom(3)], { ack: 'memory' });
    const events = client.subscribe({ channel: 'publishing', lastEventId: first });
    assert.deepEqual(
      (await take(events, 2)).map((event) => event.id),
      rest,
    );
    events.close();
  });

  it('a validation error names its field', async () => {
    await assert.rejects(client.publish([custom(1), { type: 'agent_update', agent_id: 'a' }]), (error) => {
      assert.ok(error instanceof NervewireError);
      assert.deepEqual([error.status, error.code, error.details.field], [400, 'VALIDATION_ERROR', '[1].status']);
      return true;
    });
  });

  it('a request with a lost response is repeated and publishes once', async () => {
    const proxy = await Proxy.before(daemon.port);
    const [before] = await client.publish(custom('before'));
    // Each connection is cut inside the response; the third one is not.
    let connections = 0;
    proxy.budget = () => ((connections += 1) < 3 ? 20 : Infinity);
    const ids = await clientOf({ url: proxy.url, key: daemon.key }).publish([custom('once'), custom('only')]);
    assert.equal(connections, 3);
    const events = client.subscribe({ channel: 'publishing', lastEventId: before });
    assert.deepEqual(
      (await take(events, 2)).map((event) => event.id),
      ids,
    );
    await client.publish(custom('next'));
    assert.equal((await take(events, 1))[0].data, 'next');
    events.close();
    // Without a key the request is not repeated.
    const other = await Proxy.before(daemon.port);
    other.budget = () => 20;
    await assert.rejects(clientOf({ url: other.url, key: daemon.key }).publish(custom('lost'), { idempotencyKey: false }), {
      code: 'NETWORK',
    });
    assert.equal(other.cuts, 1);
    await Promise.all([proxy.close(), other.close()]);
  });

  it('an idempotency key repeats the response and refuses another body', async () => {
    const options = { idempotencyKey: 'mine' };
    const ids = await client.publish(custom('k'), options);
    assert.deepEqual(await client.publish(custom('k'), options), ids);
    await assert.rejects(client.publish(custom('other'), options), { status: 409, code: 'CONFLICT' });
  });

  it('429 is retried after Retry-After', async () => {
    const limited = await Daemon.start({ NERVEWIRE_LIMITS__PUBLISH_PER_SECOND: '1' });
    const user = clientOf(limited, { token: await limited.token('alice') });
    await user.publish([custom(1), custom(2)]);
    // Over the rate of this connection: the second attempt succeeds after the second that the daemon asked
    // for.
    assert.equal((await within(user.publish(custom(3)), 'the second attempt')).length, 1);
    await limited.stop();
  });

  it('a request ends with its signal and at its timeout', async () => {
    const proxy = await Proxy.before(daemon.port);
    proxy.streams = 'hold';
    const held = clientOf({ url: proxy.url, key: daemon.key }, { requestTimeoutMs: 100 });
    await assert.rejects(held.request('POST', '/sse'), { code: 'TIMEOUT' });
    const aborting = new AbortController();
    const request = held.request('POST', '/sse', { signal: aborting.signal, timeoutMs: 20_000 });
    aborting.abort();
    await assert.rejects(request, NervewireError);
    await proxy.close();
  });
});

describe('resources', () => {
  let daemon, client;
  before(async () => {
    daemon = await Daemon.start();
    client = clientOf(daemon);
  });
  after(() => daemon?.stop());

  it('agents: created, published, changed by version, listed page by page, deleted', async () => {
    const events = client.subscribe({ types: 'agent_update' });
    await within(events.ready, 'ready');
    const planner = await client.agents.create({ name: 'planner', metadata: { team: 'a' } });
    assert.equal(planner.state, 'idle');
    assert.equal(etagOf(planner), '"1"');
    const changed = await client.agents.update(planner.id, { name: 'Planner' }, { ifMatch: etagOf(planner) });
    assert.equal(changed.name, 'Planner');
    await assert.rejects(client.agents.update(planner.id, { name: 'late' }, { ifMatch: etagOf(planner) }), { status: 412 });
    assert.equal((await client.agents.setState(planner.id, 'thinking')).state, 'thinking');
    await assert.rejects(client.agents.setState(planner.id, 'waiting'), { status: 409 });
    assert.equal((await client.agents.state(planner.id)).state, 'thinking');
    const said = await client.agents.say(planner.id, { message: 'Book me a train', user_id: 'alice' });
    assert.match(said.message_id, /^msg-/);
    await client.agents.delete(planner.id);
    await assert.rejects(client.agents.get(planner.id), { status: 404, code: 'NOT_FOUND' });
    assert.deepEqual(
      (await take(events, 4)).map((event) => event.status),
      ['created', 'idle', 'thinking', 'deleted'],
    );
    events.close();

    const names = Array.from({ length: 7 }, (_, n) => `agent ${n}`);
    for (const name of names) await client.agents.create({ name });
    const listed = [];
    for await (const agent of client.agents.list({ limit: 3, order: 'asc' })) listed.push(agent.name);
    assert.deepEqual(listed, names);
    const list = client.agents.list({ limit: 3, order: 'asc' });
    const { rows, nextCursor } = await list.page();
    assert.equal(rows.length, 3);
    assert.equal((await list.page(nextCursor)).rows[0].name, 'agent 3');
    const pages = [];
    for await (const page of list.pages()) pages.push(page.rows.length);
    assert.deepEqual(pages, [3, 3, 1]);
  });

  it('messages: by agent and by user', async () => {
    const agent = await client.agents.create({ name: 'talker' });
    const one = await client.messages.create({ agent_id: agent.id, user_id: 'alice', content: 'hi', metadata: { a: 1 } });
    await client.messages.create({ agent_id: agent.id, user_id: 'bob', content: 'ho' });
    assert.deepEqual((await client.messages.get(one.id)).metadata, { a: 1 });
    assert.deepEqual(
      (await client.messages.list({ agentId: agent.id, userId: 'alice' }).page()).rows.map((row) => row.content),
      ['hi'],
    );
    assert.equal((await client.messages.list({ agentId: agent.id }).page()).rows.length, 2);
    await client.messages.delete(one.id);
    await assert.rejects(client.messages.get(one.id), { status: 404 });
  });

  it('tools: by tags', async () => {
    await client.tools.create({ name: 'x', tags: ['a', 'b'] });
    await client.tools.create({ name: 'y', tags: ['b'] });
    assert.equal((await client.tools.list({ tags: 'a,b' }).page()).rows.length, 2);
    assert.equal((await client.tools.list({ tags: ['a', 'b'] }).page()).rows.length, 2);
    assert.equal((await client.tools.list({ tags: ['a', 'b'], matchAll: true }).page()).rows.length, 1);
    assert.equal((await client.tools.list().page()).rows.length, 2);
    for (const tags of [[], ['a,b'], ['']]) assert.throws(() => client.tools.list({ tags }), TypeError);
    assert.deepEqual(
      (await client.tools.list({ tags: 'a,b', matchAll: true }).page()).rows.map((row) => row.name),
      ['x'],
    );
  });

  it('memories: versions, search, several at once', async () => {
    const events = client.subscribe({ types: 'memory_update' });
    await within(events.ready, 'ready');
    const agent = await client.agents.create({ name: 'rememberer' });
    const memory = await client.memories.create({ agent_id: agent.id, content: 'Alice prefers window seats', importance: 0.9 });
    await client.memories.update(memory.id, { content: 'Alice prefers aisle seats' }, { ifMatch: etagOf(memory) });
    const history = [];
    for await (const version of client.memories.history(memory.id, { order: 'asc' })) history.push(version.content);
    assert.deepEqual(history, ['Alice prefers window seats', 'Alice prefers aisle seats']);
    const outcome = await client.memories.createMany([{ content: 'Trains leave at nine' }, { content: '' }]);
    assert.deepEqual([outcome.successful, outcome.failed, outcome.errors[0].index], [1, 1, 1]);
    const { results, total } = await client.memories.search({ query: 'seat*', agentId: agent.id, minImportance: 0.5 });
    assert.equal(total, 1);
    assert.equal(results[0].id, memory.id);
    assert.equal((await client.memories.deleteMany([...outcome.results, memory.id])).successful, 2);
    assert.deepEqual(
      (await take(events, 5)).map((event) => event.operation),
      ['created', 'updated', 'created', 'deleted', 'deleted'],
    );
    events.close();
  });

  it('users: registered, logged in, logged out', async () => {
    const password = 'correct horse battery';
    const user = await client.users.register({ email: 'ann@example.com', password, name: 'Ann', role: 'user' });
    const who = { url: daemon.url, organizationId: user.organization_id, email: user.email };
    await assert.rejects(login({ ...who, password: 'wrong password' }), { status: 401 });
    const session = await login({ ...who, password });
    assert.equal(session.user.id, user.id);
    const ann = clientOf(daemon, { getToken: async () => ({ token: session.token, expiresAt: session.expires_at }) });
    assert.equal((await ann.users.me()).email, user.email);
    assert.equal((await ann.users.updateMe({ timezone: 'Europe/Berlin' })).timezone, 'Europe/Berlin');
    const events = ann.subscribe({ channel: 'ann' });
    await within(events.ready, 'ready');
    const fresh = await ann.users.changePassword(password, `${password}!`);
    await assert.rejects(within(events.next(), 'the end'), NervewireError);
    assert.equal((await clientOf(daemon, { token: fresh.token }).users.me()).id, user.id);
    assert.ok((await client.users.list().page()).rows.some((row) => row.id === user.id));
    await client.users.setDisabled(user.id, true);
    assert.equal((await client.users.get(user.id)).disabled, true);
    await client.users.delete(user.id);
  });

  it('core memory: blocks of an agent, about everybody or one user', async () => {
    const agent = await client.agents.create({ name: 'core' });
    const whose = { agentId: agent.id, userId: 'alice' };
    await client.coreMemory.put({ agentId: agent.id }, 'persona', { value: 'Kind.' });
    const block = await client.coreMemory.put(whose, 'human', { value: 'Alice.', limit: 100 });
    assert.equal((await client.coreMemory.get(whose, 'human')).value, 'Alice.');
    assert.equal((await client.coreMemory.put(whose, 'human', { value: 'Alice!' }, { ifMatch: etagOf(block) })).value, 'Alice!');
    assert.equal((await client.coreMemory.list(whose).page()).rows.length, 1);
    await client.coreMemory.delete(whose, 'human');
    await assert.rejects(client.coreMemory.get(whose, 'human'), { status: 404 });
  });
});
