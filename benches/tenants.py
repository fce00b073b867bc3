#!/usr/bin/env python3
"""Measures the memory of an idle organization in a running daemon.

    tenants.py DAEMON [COUNT]

The script creates COUNT organizations (default 100,000) over REST in two halves, publishes one event to each,
and waits until the daemon has unloaded them. It prints the growth of PSS per organization. Use the figure of
the second half: the first half also fills the engine's buffers, which belong to no organization. For the same
reason the page cache is set to its minimum (1 MiB).

The script creates a new data directory, and signs tokens with the daemon's own key from there.
"""

import base64, hashlib, hmac, json, os, re, selectors, socket, subprocess, sys, tempfile, time, urllib.request

DAEMON, COUNT = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
CONNECTIONS = 64
QUIET_SECONDS = 80  # the daemon removes a quiet ring after a minute, in a sweep every five seconds


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Daemon:
    def __init__(self, folder):
        ready, self.folder = f"{folder}/ready", folder
        if os.path.exists(ready):
            os.remove(ready)
        environment = {**os.environ, "NERVEWIRE_STORE__CACHE_BYTES": str(1 << 20)}
        command = [DAEMON, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        command += ["--data-dir", f"{folder}/data", "--ready-file", ready]
        out, err = open(f"{folder}/out", "a"), open(f"{folder}/err", "a")
        self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        while not os.path.exists(ready):
            time.sleep(0.1)
            if self.process.poll() is not None:
                sys.exit(open(f"{folder}/err").read())
        time.sleep(1)
        self.ready = json.load(open(ready))
        self.key = re.search(r"nwk_\S+", open(f"{folder}/out").read()).group(0)
        self.secret = base64.urlsafe_b64decode(open(f"{folder}/data/auth.key").read().strip() + "=")

    def pss(self):
        text = open(f"/proc/{self.process.pid}/smaps_rollup").read()
        return int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1)) * 1024

    def loaded(self):
        page = urllib.request.urlopen(f"http://{self.ready['admin_listen']}/metrics").read().decode()
        return int(re.search(r"^nervewire_tenants (\d+)", page, re.M).group(1))

    def token(self, org):
        kid = "own-" + encode(hashlib.sha256(self.secret).digest()[:6])
        head = encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())
        now = int(time.time())
        claims = {"sub": "u", "org_id": org, "scopes": ["publish"], "iat": now, "exp": now + 3_600}
        text = f"{head}.{encode(json.dumps(claims).encode())}"
        return f"{text}.{encode(hmac.new(self.secret, text.encode(), hashlib.sha256).digest())}"

    def post(self, requests):
        """Posts each (path, credential, body) over CONNECTIONS connections, one request at a time on each."""
        host, port = self.ready["listen"].rsplit(":", 1)
        ready, requests, open_ = selectors.DefaultSelector(), iter(requests), 0

        def send(stream):
            request = next(requests, None)
            if request is None:
                ready.unregister(stream)
                stream.close()
                return False
            path, credential, body = request
            head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {credential}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            stream.sendall((head + body).encode())
            return True

        for _ in range(CONNECTIONS):
            stream = socket.create_connection((host, int(port)))
            ready.register(stream, selectors.EVENT_READ, bytearray())
            open_ += send(stream)
        while open_:
            for key, _ in ready.select():
                got = key.fileobj.recv(65_536)
                key.data.extend(got)
                head = key.data.find(b"\r\n\r\n")
                length = head > 0 and re.search(rb"content-length: (\d+)", bytes(key.data[:head]).lower())
                if not length:
                    assert got, bytes(key.data)
                    continue
                if len(key.data) >= head + 4 + int(length.group(1)):
                    assert key.data[9:10] == b"2", bytes(key.data)
                    key.data.clear()
                    open_ -= not send(key.fileobj)


def main():
    event = json.dumps({"type": "custom", "channel": "c", "data": {"text": "x" * 60}})
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(folder)
        last = daemon.pss()
        for part in range(2):
            ids = [f"tenant-{n}" for n in range(part * COUNT // 2, (part + 1) * COUNT // 2)]
            daemon.post(("/api/v1/organizations", daemon.key, json.dumps({"id": org})) for org in ids)
            time.sleep(8)
            created = daemon.pss()
            daemon.post(("/api/v1/events", daemon.token(org), event) for org in ids)
            time.sleep(QUIET_SECONDS)
            quiet, each = daemon.pss(), len(ids)
            print(f"half {part + 1} of {COUNT}: {(created - last) / each:.0f} bytes each once created,", end=" ")
            print(f"{(quiet - last) / each:.0f} published and quiet ({daemon.loaded()} in memory)", flush=True)
            last = quiet
        daemon.process.terminate()
        daemon.process.wait()


main()
