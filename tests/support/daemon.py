"""Runs the real binary as a child process, for black-box tests in Python. Needs only the standard library.

* It relies on this behaviour of the daemon: `init --json` prints {org_id,key_id,api_key}. `serve --listen
  --admin-listen --data-dir --ready-file` writes the ready file atomically, with {listen,admin_listen,pid}.
  After SIGTERM the daemon exits with 0.
* Of the API it knows only how to publish events and to read pages of them.
"""

import http.client
import json
import os
import signal
import subprocess
import time


class Daemon:
    """One `nervewire serve`. After a restart `listen` is the same, so that clients can reconnect."""

    def __init__(self, binary, data_dir, work_dir, env=None, arguments=()):
        self.binary, self.data_dir, self.work_dir = binary, data_dir, work_dir
        self.env = {**os.environ, **(env or {})}
        self.arguments = list(arguments)
        self.listen, self.process, self.starts = "127.0.0.1:0", None, 0
        os.makedirs(work_dir, exist_ok=True)

    def init(self):
        """Creates the store. Returns {org_id, key_id, api_key}."""
        out = subprocess.run(
            [self.binary, "init", "--json", "--data-dir", self.data_dir],
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, check=True,
        )
        return json.loads(out.stdout)

    def start(self, within=30):
        """Starts the daemon and waits for its ready file. If there is none, raises with the end of the log.
        """
        self.starts += 1
        ready = os.path.join(self.work_dir, f"ready-{self.starts}.json")
        self.log = os.path.join(self.work_dir, "daemon.log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--listen", self.listen, "--admin-listen", "127.0.0.1:0",
                 "--data-dir", self.data_dir, "--ready-file", ready, *self.arguments],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        end = time.monotonic() + within
        while True:
            try:
                with open(ready) as f:
                    ready_file = json.load(f)
                break
            except (FileNotFoundError, json.JSONDecodeError):
                pass
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended with {self.process.returncode} at start:\n{self.log_end()}")
            if time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"no ready file within {within} s:\n{self.log_end()}")
            time.sleep(0.01)
        self.listen = ready_file["listen"]
        return self

    def log_end(self, lines=20):
        with open(self.log, errors="replace") as f:
            return "".join(f.readlines()[-lines:])

    def stop(self, within=30):
        """Sends SIGTERM and waits for the end. Any exit code except 0 is a failure."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"still running {within} s after SIGTERM:\n{self.log_end()}") from None
        if status != 0:
            raise RuntimeError(f"exit {status} after SIGTERM:\n{self.log_end()}")

    def kill(self):
        """Sends SIGKILL."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Api:
    """One kept-alive HTTP/1.1 connection with a bearer credential."""

    def __init__(self, listen, key, timeout=30):
        self.listen, self.key, self.timeout, self.connection = listen, key, timeout, None

    def call(self, method, path, body=None, headers=None, again=False):
        """Sends a request. Returns its status, the parsed JSON or None, and the headers. If the connection
        was closed while it was idle, a repeatable request is sent again on a new one.
        """
        if self.connection is None:
            host, _, port = self.listen.rpartition(":")
            self.connection = http.client.HTTPConnection(host, int(port), timeout=self.timeout)
        head = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        parsed = body
        if body is not None:
            body = json.dumps(body).encode()
            head["Content-Type"] = "application/json"
        try:
            self.connection.request(method, path, body, head)
            response = self.connection.getresponse()
            raw = response.read()
        except Exception as error:
            self.connection.close()
            self.connection = None
            # The connection may also have been closed by a response that was sent before the body was read. A
            # repeatable request is sent once more.
            can_repeat = method == "GET" or "Idempotency-Key" in head
            if isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)) and can_repeat and not again:
                return self.call(method, path, parsed, headers, again=True)
            raise
        return response.status, json.loads(raw) if raw else None, response.headers

    def publish(self, events):
        """Publishes one event or a list. Returns the ids, or raises with the daemon's response."""
        status, body, _ = self.call("POST", "/api/v1/events", events)
        if status != 201:
            raise Refused(status, body)
        return body["data"]["ids"]

    def pages(self, limit=1000):
        """Yields every retained event, beginning with the earliest, page by page."""
        status, page, _ = self.call("GET", f"/api/v1/events?earliest=true&limit={limit}")
        while True:
            if status != 200:
                raise Refused(status, page)
            if page["gap"] is not None:
                raise Gap(page["gap"])
            yield from page["data"]
            if page["caught_up"]:
                return
            status, page, _ = self.call("GET", f"/api/v1/events?after={page['next_cursor']}&limit={limit}")


class Gap(Exception):
    """A page has a gap: the events that should follow are no longer retained."""

    def __init__(self, gap):
        super().__init__(f"gap: {gap}")
        self.reason = gap["reason"]


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


def find_binary(root):
    """Returns the path in NERVEWIRE_BIN. Without it, makes a release build and returns its path."""
    binary = os.environ.get("NERVEWIRE_BIN")
    if not binary:
        subprocess.run(["cargo", "build", "--release", "--bin", "nervewire"], cwd=root, stdin=subprocess.DEVNULL, check=True)
        binary = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target")), "release", "nervewire")
    return os.path.abspath(binary)
