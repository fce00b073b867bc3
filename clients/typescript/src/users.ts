/** The users of an organization. A user without a token gets one from `login`. */
import { Backoff } from './backoff.js';
import { dataOf, matching, type Changing, type Writing } from './collection.js';
import { Credential } from './credential.js';
import { baseOf, freshKey, Http, REQUEST_TIMEOUT_MS } from './http.js';
import { List, type ListOptions } from './pages.js';
import type * as shape from './shapes.js';

export class Users {
  constructor(private readonly http: Http) {}

  /** Needs the scope `manage`. */
  async register(user: shape.NewUser, { idempotencyKey = freshKey(), signal }: Writing = {}): Promise<shape.User> {
    return dataOf(await this.http.call('POST', '/users/register', { body: user, idempotencyKey, signal }));
  }

  async me(): Promise<shape.User> {
    return dataOf(await this.http.call('GET', '/users/me'));
  }

  async updateMe(change: shape.UserChange, { ifMatch, signal }: Changing = {}): Promise<shape.User> {
    return dataOf(await this.http.call('PATCH', '/users/me', { body: change, signal, ...matching(ifMatch) }));
  }

  /** Ends every token of the user, including this client's, and returns a new one. */
  async changePassword(current: string, next: string): Promise<shape.Session> {
    return dataOf(await this.http.call('PUT', '/users/me/password', { body: { current_password: current, new_password: next } }));
  }

  list(options: ListOptions = {}): List<shape.User> {
    return new List(this.http, '/users', {}, options);
  }

  async get(id: string): Promise<shape.User> {
    return dataOf(await this.http.call('GET', `/users/${encodeURIComponent(id)}`));
  }

  async delete(id: string, { ifMatch, signal }: Changing = {}): Promise<void> {
    await this.http.call('DELETE', `/users/${encodeURIComponent(id)}`, { signal, ...matching(ifMatch) });
  }

  /**
   * Disables or enables a user. No credential of a disabled user is valid; its connections end within a
   * second.
   */
  async setDisabled(id: string, disabled: boolean): Promise<void> {
    await this.http.call('PUT', `/users/${encodeURIComponent(id)}/disabled`, { body: { disabled } });
  }
}

/** The credentials of a login. */
export interface Login {
  url: string;
  organizationId: string;
  email: string;
  password: string;
  fetch?: typeof globalThis.fetch;
}

/** Gets a token for an email and a password. Pass it, or a `getToken` that calls this, to a client. */
export async function login({ url, organizationId, email, password, fetch }: Login): Promise<shape.Session> {
  const ask: typeof globalThis.fetch = fetch ?? ((...request) => globalThis.fetch(...request));
  const http = new Http(baseOf(url), Credential.none(), ask, REQUEST_TIMEOUT_MS, () => new Backoff());
  return dataOf(await http.call('POST', '/users/login', { body: { organization_id: organizationId, email, password } }));
}
