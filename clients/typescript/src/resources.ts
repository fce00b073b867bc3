/** The REST resources of an organization. Each is a property of the client. */
import { Collection, dataOf, matching, type Changing, type Writing } from './collection.js';
import { listed } from './filter.js';
import { freshKey, type Http } from './http.js';
import { CoreMemory, Memories } from './memories.js';
import type { List, ListOptions } from './pages.js';
import type * as shape from './shapes.js';
import { Users } from './users.js';

export class Agents extends Collection<shape.Agent, shape.NewAgent, shape.AgentChange> {
  async state(id: string): Promise<shape.AgentState> {
    return dataOf(await this.http.call('GET', this.at(id, 'state')));
  }

  async setState(
    id: string,
    state: shape.AgentStatus,
    errorMessage?: string,
    { ifMatch, signal }: Changing = {},
  ): Promise<shape.AgentState> {
    const body = errorMessage === undefined ? { state } : { state, error_message: errorMessage };
    return dataOf(await this.http.call('PUT', this.at(id, 'state'), { body, signal, ...matching(ifMatch) }));
  }

  /** Stores a message of a user to an agent. The response of the agent arrives as events. */
  async say(
    id: string,
    message: shape.NewAgentMessage,
    { idempotencyKey = freshKey(), signal }: Writing = {},
  ): Promise<shape.SentAgentMessage> {
    return dataOf(await this.http.call('POST', this.at(id, 'messages'), { body: message, idempotencyKey, signal }));
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

export interface ToolFilter {
  /** One of these tags; an array or a comma list. */
  tags?: string | readonly string[] | undefined;
  /** Match all tags instead of any. */
  matchAll?: boolean | undefined;
}

export class Tools extends Collection<shape.Tool, shape.NewTool, shape.ToolChange, ToolFilter> {
  override list({ tags, ...options }: ListOptions & ToolFilter = {}): List<shape.Tool> {
    return super.list({ ...options, tags: typeof tags === 'object' ? listed('tags', tags) : tags });
  }
}

export class Resources {
  readonly agents: Agents;
  readonly messages: Messages;
  readonly tools: Tools;
  readonly memories: Memories;
  readonly coreMemory: CoreMemory;
  readonly users: Users;

  constructor(protected readonly http: Http) {
    this.agents = new Agents(http, '/agents');
    this.messages = new Messages(http);
    this.tools = new Tools(http, '/tools');
    this.memories = new Memories(http, '/memories');
    this.coreMemory = new CoreMemory(http);
    this.users = new Users(http);
  }
}
