"""Shared helpers of the Python clients: they call the daemon's REST API and the control server of the test,
and run stories in order.
"""

import os
import sys
import traceback

import httpx

DIRECT, PROXIED, KEY, STAGE = (os.environ[name] for name in ("NERVEWIRE_URL", "NERVEWIRE_PROXY", "NERVEWIRE_KEY", "STAGE"))
BEARER = {"Authorization": f"Bearer {KEY}"}
# Longest wait for anything that is expected, in seconds.
LIMIT = 20


def api(method, path, body=None):
    response = httpx.request(method, DIRECT + path, json=body, headers=BEARER, timeout=LIMIT)
    assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
    return response.json() if response.content else None


def publish(channel, values):
    """Publishes one `custom` event per value in one request. Returns the ids."""
    return api("POST", "/api/v1/events", [{"type": "custom", "channel": channel, "data": {"n": n}} for n in values])["data"]["ids"]


def stage(action):
    response = httpx.post(f"{STAGE}/{action}", timeout=60)
    assert response.status_code == 200, f"stage {action}: {response.text}"


def tell(client, stories):
    """Runs (name, function) pairs in order. The first failure ends the program."""
    for name, story in stories:
        try:
            story()
        except Exception:
            print(f"not ok {client}: {name}")
            traceback.print_exc(file=sys.stdout)
            sys.exit(1)
        print(f"ok {client}: {name}")
