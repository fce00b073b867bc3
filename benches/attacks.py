#!/usr/bin/env python3
"""Measures the effect of attacks on the daemon and on another organization.

    attacks.py DAEMON [--seconds N] [--check] [NAME ...]

For each attack the script starts a new daemon with the default configuration and two organizations. The
organization `victim` has ten subscribers and publishes fifty events per second, first alone, then while the
attacker runs in a separate process. Each line shows

    rss      the growth of the daemon's peak resident memory during the attack, in MiB
    kept     the part of this growth that remains three seconds after the attack
    p99      the victim's 99th percentile from publish to send in microseconds, counted by the daemon: alone,
             and under attack
    cpu      cores used by the daemon during the attack

With `--check` the script exits with 1 if a limit is missed. The limits of rss are 64 MiB for attackers
without a credential and SHARE (256 MiB) for those of an organization. The limit of p99 is max(2 x alone, 5
ms). No publish of the victim may be refused. The attacker and the daemon share the machine's cores; the
attacker has a lower priority (nice 10).

The script needs only the standard library. All traffic is on the loopback interface. Daemon and attacker end
with the script.
"""

import argparse, http.client, json, multiprocessing, os, random, re, selectors, socket, struct, subprocess, sys, tempfile, threading, time

# The limits: ANONYMOUS and SHARE in MiB, P99 in microseconds.
ANONYMOUS, SHARE, P99 = 64, 256, 5_000
ATTACKS = {}


def attack(share=ANONYMOUS):
    def register(function):
        ATTACKS[function.__name__] = (function, share)
        return function
    return register


class Daemon:
    def __init__(self, binary, folder, environment=None):
        self.folder, ready = folder, f"{folder}/ready"
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        command += ["--data-dir", f"{folder}/data", "--ready-file", ready]
        out, err = open(f"{folder}/out", "a"), open(f"{folder}/err", "a")
        self.process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(environment or {})})
        while not os.path.exists(ready):
            time.sleep(0.05)
            if self.process.poll() is not None:
                sys.exit(open(f"{folder}/err").read())
        self.ready = json.load(open(ready))
        host, port = self.ready["listen"].rsplit(":", 1)
        self.address = (host, int(port))
        self.key = re.search(r"nwk_\S+", open(f"{folder}/out").read()).group(0)

    def call(self, method, path, body=None, key=None, headers=None):
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        head = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, None if body is None else json.dumps(body), head)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None

    def made(self, method, path, body=None, key=None):
        status, answer = self.call(method, path, body, key)
        if status not in (200, 201):
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer["data"]

    def rss(self):
        text = open(f"/proc/{self.process.pid}/status").read()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) / 1024

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def organization(self, id):
        """Creates an organization and returns a key with every scope."""
        made = self.made("POST", "/api/v1/organizations", {"id": id})
        if "api_key" in made:
            return made["api_key"]
        return self.made("POST", "/api/v1/api-keys", {"org_id": id, "scopes": ["*"]})["api_key"]

    def user(self, key, sub):
        """Returns a token of role `user`."""
        return self.made("POST", "/api/v1/tokens", {"sub": sub, "roles": ["user"]}, key)["token"]


class Victim:
    """Ten subscribers and a publisher, each on its own thread."""

    def __init__(self, daemon):
        self.daemon, self.key, self.ended = daemon, daemon.organization("victim"), False
        self.published, self.refused = 0, 0
        for _ in range(10):
            threading.Thread(target=self.subscribe, daemon=True).start()
        threading.Thread(target=self.publish, daemon=True).start()

    def subscribe(self):
        stream = socket.create_connection(self.daemon.address)
        stream.sendall(f"GET /api/v1/sse HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.key}\r\n\r\n".encode())
        while not self.ended and stream.recv(65_536):
            pass

    def publish(self):
        connection = http.client.HTTPConnection(*self.daemon.address, timeout=30)
        head = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        event = json.dumps({"type": "custom", "channel": "c", "data": {"text": "x" * 100}})
        due = time.monotonic()
        while not self.ended:
            due = max(due + 0.02, time.monotonic() - 0.2)
            time.sleep(max(0, due - time.monotonic()))
            try:
                connection.request("POST", "/api/v1/events", event, head)
                response = connection.getresponse()
                response.read()
                self.published += response.status == 201
                self.refused += response.status != 201
            except (OSError, http.client.HTTPException):
                self.refused += 1
                connection.close()

    def times(self):
        buckets = self.daemon.made("GET", "/api/v1/stats", key=self.key)["publish_to_send"]["buckets"]
        return {bucket["under_us"] or 1 << 40: bucket["count"] for bucket in buckets}


def p99(before, after):
    grown = sorted((bound, count - before.get(bound, 0)) for bound, count in after.items())
    rank, below = sum(count for _, count in grown) * 0.99, 0
    for bound, count in grown:
        below += count
        if below >= rank:
            return bound
    return 0


def crowd(address, count, first, ended, answer=None):
    """Opens `count` sockets and sends `first(n)` on each. Then calls `answer(n, stream)` in turn until
    `ended`.
    """
    streams = []
    for n in range(count):
        if ended():
            return streams
        try:
            stream = socket.create_connection(address, timeout=5)
            stream.settimeout(0.5)
            stream.sendall(first(n))
            streams.append(stream)
        except OSError:
            time.sleep(0.01)
    while not ended():
        alive = 0
        for n, stream in enumerate(streams):
            if ended():
                break
            try:
                answer and answer(n, stream)
                alive += 1
            except OSError:
                pass
        time.sleep(0.05 if alive else 0.2)
    return streams


STATUSES = {}


def flood(address, request, ended, connections=32):
    """Sends `request(n)` on each of `connections` as fast as responses arrive. Reopens closed connections."""
    selector, n = selectors.DefaultSelector(), 0

    def open_one():
        try:
            stream = socket.create_connection(address, timeout=5)
        except OSError:
            time.sleep(0.01)
            return
        selector.register(stream, selectors.EVENT_READ, bytearray())
        send(stream)

    def send(stream):
        nonlocal n
        n += 1
        try:
            stream.sendall(request(n))
        except OSError:
            selector.unregister(stream)
            stream.close()

    while not ended():
        while len(selector.get_map()) < connections and not ended():
            open_one()
        for key, _ in selector.select(0.2):
            try:
                got = key.fileobj.recv(65_536)
            except OSError:
                got = b""
            key.data.extend(got)
            head = key.data.find(b"\r\n\r\n")
            length = head > 0 and re.search(rb"content-length: (\d+)", bytes(key.data[:head]).lower())
            if head > 0 and (not length or len(key.data) >= head + 4 + int(length.group(1))):
                status = int(key.data[9:12])
                STATUSES[status] = STATUSES.get(status, 0) + 1
                key.data.clear()
                send(key.fileobj)
            elif not got:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def publish_beside(c, ended):
    """Publishes arrays of 500 kB in the attacker's organization, on a thread."""
    events = [{"type": "custom", "channel": "c", "data": {"text": "x" * 10_000}}] * 50
    def publish():
        flood(c.address, lambda n: request("POST", "/api/v1/events?ack=memory", events, c.key), ended, 1)
    threading.Thread(target=publish, daemon=True).start()


def request(method, path, body=None, key=None, extra=""):
    body = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\n{extra}"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return head.encode() + b"\r\n" + body


class H2:
    """Encodes frames of RFC 9113, with headers as HPACK literals without indexing."""

    PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    @staticmethod
    def number(value, prefix):
        most = (1 << prefix) - 1
        if value < most:
            return bytes([value])
        out, value = [most], value - most
        while value >= 128:
            out.append(value % 128 + 128)
            value //= 128
        return bytes(out + [value])

    @classmethod
    def get(cls, stream, path, headers=()):
        block = b""
        for name, value in ((":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a"), *headers):
            block += b"\0" + cls.number(len(name), 7) + name.encode() + cls.number(len(value), 7) + value.encode()
        return cls.frame(1, 5, stream, block)

    @classmethod
    def start(cls, window):
        return cls.PREFACE + cls.frame(4, 0, 0, struct.pack(">HI", 4, window))


# Attacks without a credential.

@attack()
def h2_unread_assets(c, ended):
    """20 HTTP/2 connections with a window of 0 request the largest file 100 times."""
    first = H2.start(0) + b"".join(H2.get(1 + 2 * n, "/docs/swagger-ui-bundle.js") for n in range(100))
    crowd(c.address, 20, lambda _: first, ended)


@attack()
def h1_unread_assets(c, ended):
    """500 connections request the largest file 20 times each and read nothing."""
    crowd(c.address, 500, lambda _: request("GET", "/docs/swagger-ui-bundle.js") * 20, ended)


@attack()
def slow_heads(c, ended):
    """2,000 sockets send their request heads very slowly."""
    crowd(c.address, 2_000, lambda _: b"GET / HTTP/1.1\r\nHost: a\r\nX-Filler: ", ended, lambda n, s: s.send(b"y" * 64))


@attack()
def slow_bodies(c, ended):
    """1,000 logins send their body of 4 KiB very slowly."""
    head = b"POST /api/v1/users/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"
    crowd(c.address, 1_000, lambda _: head, ended, lambda n, s: s.send(b" "))


@attack()
def wrong_passwords(c, ended):
    """Logins with wrong passwords, as fast as responses arrive."""
    body = {"email": "boss@example.com", "password": "wrong-password", "organization_id": "victim"}
    flood(c.address, lambda n: request("POST", "/api/v1/users/login", {**body, "password": f"wrong-{n}"}), ended)


@attack()
def wrong_keys(c, ended):
    """Requests with keys that do not exist."""
    flood(c.address, lambda n: request("GET", "/api/v1/agents", key=f"nwk_{n:016x}_" + "A" * 43), ended)


@attack()
def h2_rapid_reset(c, ended):
    """Streams that are opened and reset immediately, 100 at a time."""
    def more(n, stream):
        at = more.next[n]
        more.next[n] += 200
        stream.send(b"".join(H2.get(at + 2 * i, "/docs/swagger-ui-bundle.js") + H2.frame(3, 0, at + 2 * i, b"\0\0\0\x08") for i in range(100)))
    more.next = [1] * 50
    crowd(c.address, 50, lambda _: H2.start(65_535), ended, more)


@attack()
def h2_pings(c, ended):
    """Pings whose responses are not read."""
    crowd(c.address, 50, lambda _: H2.start(0), ended, lambda n, s: s.send(H2.frame(6, 0, 0, b"12345678") * 500))


@attack()
def h2_continuations(c, ended):
    """Header blocks that never end."""
    block = b"\0" + H2.number(1, 7) + b"a" + H2.number(1_000, 7) + b"b" * 1_000
    first = H2.start(0) + H2.frame(1, 0, 1, block)
    crowd(c.address, 50, lambda _: first, ended, lambda n, s: s.send(H2.frame(9, 0, 1, block)))


@attack()
def pipelined(c, ended):
    """Pipelined requests whose responses are not read."""
    crowd(c.address, 200, lambda _: request("GET", "/api-docs/openapi.json") * 50, ended, lambda n, s: s.send(request("GET", "/api-docs/openapi.json") * 10))


@attack()
def connects(c, ended):
    """Sockets opened and closed as fast as possible."""
    while not ended():
        try:
            socket.create_connection(c.address, timeout=1).close()
        except OSError:
            pass


# Attacks with a credential of an organization.

@attack(SHARE)
def h2_unread_sse(c, ended):
    """HTTP/2 event streams whose window stays closed while the organization publishes."""
    bearer = [("authorization", f"Bearer {c.key}")]
    first = H2.start(0) + b"".join(H2.get(1 + 2 * n, "/api/v1/sse", bearer) for n in range(50))
    publish_beside(c, ended)
    crowd(c.address, 10, lambda _: first, ended)


@attack(SHARE)
def partial_messages(c, ended):
    """1,000 WebSocket messages that lack their last byte."""
    head = f"GET /api/v1/ws?subscribe=none HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {c.key}\r\n\r\n".encode()
    frame = b"\x81" + bytes([0x80 | 127]) + struct.pack(">Q", 1_000_000) + b"\0\0\0\0" + b" " * 999_999
    crowd(c.address, 1_000, lambda _: head + frame, ended)


@attack(SHARE)
def unread_ws(c, ended):
    """500 WebSocket subscribers that read nothing while their organization publishes."""
    head = f"GET /api/v1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {c.key}\r\n\r\n".encode()
    publish_beside(c, ended)
    crowd(c.address, 500, lambda _: head, ended)


@attack(SHARE)
def large_bodies(c, ended):
    """500 bodies of 4 MiB that lack their last byte."""
    head = request("POST", "/api/v1/events", None, c.key, "Content-Type: application/json\r\nContent-Length: 4000000\r\n")
    crowd(c.address, 500, lambda _: head + b" " * 3_999_999, ended)


@attack(SHARE)
def messages(c, ended):
    """One user creates messages, as many as are accepted."""
    text = "x" * 30_000
    body = {"agent_id": c.agent, "content": text, "role": "user"}
    flood(c.address, lambda n: request("POST", "/api/v1/messages", body, c.user), ended, 16)


@attack(SHARE)
def events(c, ended):
    """Arrays of events, as fast as they are acknowledged from memory."""
    events = [{"type": "custom", "channel": "c", "data": {"text": "x" * 1_000}}] * 500
    flood(c.address, lambda n: request("POST", "/api/v1/events?ack=memory", events, c.key), ended, 16)


@attack(SHARE)
def toggles(c, ended):
    """Users disabled and enabled repeatedly while the organization has 2,000 connections."""
    head = request("GET", "/api/v1/sse", None, c.key)
    threading.Thread(target=lambda: crowd(c.address, 2_000, lambda _: head, ended), daemon=True).start()
    flood(c.address, lambda n: request("PUT", f"/api/v1/users/u{n % 50}/disabled", {"disabled": n // 50 % 2 == 0}, c.key), ended, 16)


@attack(SHARE)
def listings(c, ended):
    """GET /connections while the organization has 2,000 connections."""
    head = request("GET", "/api/v1/sse", None, c.key)
    threading.Thread(target=lambda: crowd(c.address, 2_000, lambda _: head, ended), daemon=True).start()
    flood(c.address, lambda n: request("GET", "/api/v1/connections?limit=100", None, c.key), ended, 16)


@attack(SHARE)
def searches(c, ended):
    """Searches of many words over many memories."""
    words = [f"word{n}" for n in range(200)]
    def memories(n):
        batch = [{"agent_id": c.agent, "content": " ".join(random.choices(words, k=40))} for _ in range(100)]
        return request("POST", "/api/v1/memories/batch", {"memories": batch}, c.key)
    end = time.monotonic() + 3
    flood(c.address, memories, lambda: ended() or time.monotonic() > end, 4)
    flood(c.address, lambda n: request("GET", "/api/v1/memories/search?query=" + "+".join(random.sample(words, 12)), None, c.key), ended, 64)


@attack(SHARE)
def tickets(c, ended):
    """Tickets created as fast as possible."""
    flood(c.address, lambda n: request("POST", "/api/v1/tickets", {}, c.user), ended, 16)


@attack(SHARE)
def idempotency_keys(c, ended):
    """Publishes with a new idempotency key each."""
    event = {"type": "custom", "channel": "c", "data": 1}
    flood(c.address, lambda n: request("POST", "/api/v1/events?ack=memory", event, c.key, f"Idempotency-Key: {n}\r\n"), ended, 32)


@attack(SHARE)
def keys(c, ended):
    """API keys created as fast as possible."""
    flood(c.address, lambda n: request("POST", "/api/v1/api-keys", {"name": "k", "scopes": ["subscribe"]}, c.key), ended, 16)


class Context:
    pass


def attacker(function, context, seconds):
    os.nice(10)
    end = time.monotonic() + seconds
    function(context, lambda: time.monotonic() > end)
    if STATUSES:
        print(f"{function.__name__:20} responses by status {STATUSES}", flush=True)
    os._exit(0)


def run(binary, name, seconds):
    function, share = ATTACKS[name]
    with tempfile.TemporaryDirectory(prefix="nervewire-attacks-") as folder:
        daemon = Daemon(binary, folder)
        try:
            context = Context()
            context.address, context.key = daemon.address, daemon.organization("attacker")
            context.user = daemon.user(context.key, "mallory")
            context.agent = daemon.made("POST", "/api/v1/agents", {"name": "a"}, context.key)["id"]
            victim = Victim(daemon)
            time.sleep(2)
            first = victim.times()
            time.sleep(5)
            second, quiet, spent, refused = victim.times(), daemon.rss(), daemon.cpu(), victim.refused
            process = multiprocessing.get_context("fork").Process(target=attacker, args=(function, context, seconds))
            process.start()
            most = quiet
            while process.is_alive():
                most = max(most, daemon.rss())
                process.join(0.1)
            cores = (daemon.cpu() - spent) / seconds
            third = victim.times()
            victim_refused = victim.refused - refused
            time.sleep(3)
            kept = daemon.rss() - quiet
            victim.ended = True
            alone, under = p99(first, second), p99(second, third)
            grown = most - quiet
            missed = [word for word, bad in (
                ("rss", grown > share), ("p99", under > max(2 * alone, P99)), ("refused", victim_refused > 0),
            ) if bad]
            print(f"{name:20} rss {grown:7.1f} kept {kept:7.1f} p99 {alone:6} -> {under:8} cpu {cores:4.2f} "
                  f"refused {victim_refused:4} {'MISSED ' + ','.join(missed) if missed else 'ok'}", flush=True)
            return not missed
        finally:
            daemon.process.terminate()
            daemon.process.wait()


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[0])
    parser.add_argument("daemon")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_intermixed_args()
    kept = [run(options.daemon, name, options.seconds) for name in options.names or list(ATTACKS)]
    print(f"{sum(kept)} of {len(kept)} attacks within the limits")
    sys.exit(options.check and not all(kept))


main()
