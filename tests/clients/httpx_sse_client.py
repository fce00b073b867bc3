"""Tests PyPI `httpx-sse`: it receives live events over SSE, and resumes with the `Last-Event-ID` header after
the network fails and the daemon is killed with `kill -9`.
"""

import contextlib
import json

import httpx
from httpx_sse import connect_sse

from story import BEARER, DIRECT, LIMIT, PROXIED, api, publish, stage, tell

CHANNEL = "clients/httpx-sse"


@contextlib.contextmanager
def source(base, headers=None):
    with httpx.Client(timeout=LIMIT) as client:
        url = f"{base}/api/v1/sse"
        with connect_sse(client, "GET", url, params={"channel": CHANNEL}, headers={**BEARER, **(headers or {})}) as sse:
            assert sse.response.status_code == 200, sse.response.status_code
            yield sse.iter_sse()


def expect(events, name):
    """Returns the next event, which must have this name. Skips heartbeats with an id."""
    for event in events:
        if event.event == "heartbeat":
            continue
        assert event.event == name, event
        assert event.data, "an empty event"
        return event
    raise AssertionError(f"the stream ended before {name}")


def values(events, ids):
    got = [expect(events, "message") for _ in ids]
    assert [event.id for event in got] == ids
    return [json.loads(event.data)["data"]["n"] for event in got]


def live():
    with source(DIRECT) as events:
        ready = expect(events, "ready")
        assert ready.retry == 2000 and ready.id, ready
        assert values(events, publish(CHANNEL, [1, 2, 3])) == [1, 2, 3]


def resume():
    with source(PROXIED) as events:
        expect(events, "ready")
        seen = publish(CHANNEL, ["a", "b"])
        assert values(events, seen) == ["a", "b"]
        stage("cut")
        try:
            next(events)
            raise AssertionError("an event after the cut")
        except (httpx.TransportError, StopIteration):
            pass
    missed = publish(CHANNEL, ["c", "d"])
    stage("restart")
    missed += publish(CHANNEL, ["e", "f"])
    stage("release")
    with source(PROXIED, {"Last-Event-ID": seen[-1]}) as events:
        expect(events, "ready")
        assert values(events, missed) == ["c", "d", "e", "f"]
        expect(events, "caught_up")
        assert values(events, publish(CHANNEL, ["g"])) == ["g"]


def kicked():
    with source(DIRECT) as events:
        ready = json.loads(expect(events, "ready").data)
        api("DELETE", f"/api/v1/connections/{ready['connection_id']}")
        expect(events, "closing")
        assert list(events) == [], "events after closing"


tell("httpx-sse", [
    ("retry and ready come first, then events in order", live),
    ("after a cut and kill -9, a client with Last-Event-ID receives exactly the missed events, then live events", resume),
    ("a kicked connection gets a close code and ends", kicked),
])
