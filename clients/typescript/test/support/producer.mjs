// A producer of a stream without this client: plain requests, so that a test of readers does not depend on the
// writer.
export class Producer {
  static async open(daemon, request_id, more = {}) {
    const producer = new Producer();
    const body = { request_id, ...more };
    Object.assign(producer, { daemon, id: request_id, token: (await daemon.api('POST', '/streams', body)).producer_token });
    return producer;
  }

  append(chunk, part) {
    return this.say('chunks', { chunk, ...(part && { part }) });
  }

  async say(word, body) {
    const response = await fetch(`${this.daemon.url}/api/v1/streams/${encodeURIComponent(this.id)}/${word}`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${this.daemon.key}`,
        'x-producer-token': this.token,
        'content-type': 'application/json',
      },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${word}: ${response.status} ${await response.text()}`);
    return (await response.json()).data;
  }
}
