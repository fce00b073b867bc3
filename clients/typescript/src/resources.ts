/**
 * The resources over REST: agents, messages, tools, memories, users, core memory.
 *
 * - Whatever is made is made under a fresh `Idempotency-Key`, so a lost answer does not make it twice.
 * - `etagOf(agent)` is the version that came with it; given as `ifMatch`, a change of another version is refused (412).
 */
import { freshKey, type Answer, type Call, type Http, type QueryValue } from './http.js';
import type * as shape from './shapes.js';
import { List, type ListOptions } from './pages.js';

export interface Writing {
  idempotencyKey?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface Changing {
  /** `etagOf` what was read: change only that version. */
  ifMatch?: string | undefined;
  signal?: AbortSignal | undefined;
}

const etags = new WeakMap<object, string>();

/** The version of something that this client read, for `ifMatch`. */
export function etagOf(resource: object): string | undefined {
  return etags.get(resource);
}

/** One kind of resource: its rows, what makes and what changes one, and what its list may be narrowed by. */
export class Collection<Row extends object, New, Change, Narrow extends object = Record<never, never>> {
  constructor(
    protected readonly http: Http,
    protected readonly path: string,
  ) {}

  async create(row: New, { idempotencyKey = freshKey(), signal }: Writing = {}): Promise<Row> {
    return dataOf<Row>(await this.http.call('POST', this.path, { body: row, idempotencyKey, signal }));
  }

  async get(id: string, signal?: AbortSignal): Promise<Row> {
    return dataOf<Row>(await this.http.call('GET', this.at(id), { signal }));
  }

  /** Changes what is given; `null` clears. */
  async update(id: string, change: Change, { ifMatch, signal }: Changing = {}): Promise<Row> {
    return dataOf<Row>(await this.http.call('PATCH', this.at(id), { body: change, signal, ...matching(ifMatch) }));
  }

  async delete(id: string, { ifMatch, signal }: Changing = {}): Promise<void> {
    await this.http.call('DELETE', this.at(id), { signal, ...matching(ifMatch) });
  }

  list(options: ListOptions & Narrow = {} as ListOptions & Narrow): List<Row> {
    const { limit, order, cursor, signal, ...filter } = options;
    return new List(this.http, this.path, queried(filter), { limit, order, cursor, signal });
  }

  protected at(id: string, ...rest: string[]): string {
    return [this.path, ...[id, ...rest].map(encodeURIComponent)].join('/');
  }
}

export class Agents extends Collection<shape.Agent, shape.NewAgent, shape.AgentChange> {
  async state(id: string): Promise<shape.AgentStateView> {
    return dataOf(await this.http.call('GET', this.at(id, 'state')));
  }

  async setState(id: string, state: shape.AgentState, errorMessage?: string, { ifMatch, signal }: Changing = {}): Promise<shape.AgentStateView> {
    const body = errorMessage === undefined ? { state } : { state, error_message: errorMessage };
    return dataOf(await this.http.call('PUT', this.at(id, 'state'), { body, signal, ...matching(ifMatch) }));
  }

  /** Keeps what a user says to an agent; what the agent answers comes as events. */
  async say(id: string, said: shape.Say, { idempotencyKey = freshKey(), signal }: Writing = {}): Promise<shape.Said> {
    return dataOf(await this.http.call('POST', this.at(id, 'messages'), { body: said, idempotencyKey, signal }));
  }
}

/** Messages cannot be changed. */
export class Messages {
  readonly #all: Collection<shape.Message, shape.NewMessage, never, { agentId?: string; userId?: string }>;

  constructor(http: Http) {
    this.#all = new Collection(http, '/messages');
  }

  create(message: shape.NewMessage, writing?: Writing): Promise<shape.Message> {
    return this.#all.create(message, writing);
  }

  get(id: string, signal?: AbortSignal): Promise<shape.Message> {
    return this.#all.get(id, signal);
  }

  delete(id: string, changing?: Changing): Promise<void> {
    return this.#all.delete(id, changing);
  }

  list(options: ListOptions & { agentId?: string; userId?: string } = {}): List<shape.Message> {
    return this.#all.list(options);
  }
}

export class Tools extends Collection<shape.Tool, shape.NewTool, shape.ToolChange, { tags?: string; matchAll?: boolean }> {}

export class Resources {
  readonly agents: Agents;
  readonly messages: Messages;
  readonly tools: Tools;

  constructor(protected readonly http: Http) {
    this.agents = new Agents(http, '/agents');
    this.messages = new Messages(http);
    this.tools = new Tools(http, '/tools');
  }
}

export function dataOf<T>({ body, headers }: Answer): T {
  const data = (body as { data: T }).data;
  const etag = headers.get('etag');
  if (etag !== null && typeof data === 'object' && data !== null) etags.set(data, etag);
  return data;
}

export function matching(etag: string | undefined): Pick<Call, 'headers'> {
  return etag === undefined ? {} : { headers: { 'if-match': etag } };
}

/** `agentId` is `agent_id` on the wire. */
export function queried(filter: object): Record<string, QueryValue> {
  const entries = Object.entries(filter) as [string, QueryValue][];
  return Object.fromEntries(entries.map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]));
}
