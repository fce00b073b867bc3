"""Tests PyPI `websockets`: live events, JSON ping, fragments, a refused credential, and resume with
`last_event_id` after the network fails and the daemon is killed with `kill -9`.
"""

import json
import urllib.parse

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from story import BEARER, DIRECT, LIMIT, PROXIED, publish, stage, tell

CHANNEL = "clients/websockets"


def dial(base, headers=BEARER, **query):
    query = urllib.parse.urlencode({"channel": CHANNEL, **query})
    return connect(f"{base.replace('http', 'ws')}/api/v1/ws?{query}", additional_headers=headers, open_timeout=LIMIT)


def expect(ws, kind):
    """Returns the next frame, which must be of this type. Skips heartbeats."""
    while True:
        frame = json.loads(ws.recv(timeout=LIMIT))
        if frame["type"] == "ping":
            continue
        assert frame["type"] == kind, frame
        return frame


def values(ws, ids):
    events = [expect(ws, "custom") for _ in ids]
    assert [event["id"] for event in events] == ids
    return [event["data"]["n"] for event in events]


def live():
    with dial(DIRECT) as ws:
        assert expect(ws, "ready")["resumed"] is False
        assert values(ws, publish(CHANNEL, [1, 2, 3])) == [1, 2, 3]


def ping():
    with dial(DIRECT) as ws:
        expect(ws, "ready")
        ws.send(json.dumps({"type": "ping", "timestamp": "2026-01-01T00:00:00.000Z"}))
        expect(ws, "pong")
        assert ws.ping("there?").wait(LIMIT), "no protocol pong"


def fragments():
    """A message that is sent in fragments is one message for the daemon."""
    with dial(DIRECT) as ws:
        expect(ws, "ready")
        text = json.dumps({"type": "publish", "ref": "r", "event": {"type": "custom", "channel": CHANNEL, "data": {"n": "ü€😀"}}}, ensure_ascii=False)
        ws.send(iter(list(text)))
        frames = sorted((json.loads(ws.recv(timeout=LIMIT)) for _ in range(2)), key=lambda frame: frame["type"])
        assert frames[0]["type"] == "ack" and frames[0]["ref"] == "r", frames
        assert frames[1]["id"] == frames[0]["ids"][0] and frames[1]["data"]["n"] == "ü€😀", frames


def resume():
    with dial(PROXIED) as ws:
        expect(ws, "ready")
        seen = publish(CHANNEL, ["a", "b"])
        assert values(ws, seen) == ["a", "b"]
        stage("cut")
        try:
            ws.recv(timeout=LIMIT)
            raise AssertionError("a frame after the cut")
        except ConnectionClosed as closed:
            assert closed.rcvd is None, closed
    missed = publish(CHANNEL, ["c", "d"])
    stage("restart")
    missed += publish(CHANNEL, ["e", "f"])
    stage("release")
    with dial(PROXIED, last_event_id=seen[-1]) as ws:
        assert expect(ws, "ready")["resumed"] is True
        assert values(ws, missed) == ["c", "d", "e", "f"]
        expect(ws, "caught_up")
        assert values(ws, publish(CHANNEL, ["g"])) == ["g"]
        ws.close(1000)
        assert ws.close_code == 1000


def refusal():
    try:
        dial(DIRECT, headers={"Authorization": "Bearer nwk_x_y"}).close()
        raise AssertionError("a bad credential was accepted")
    except InvalidStatus as refused:
        assert refused.response.status_code == 401


tell("websockets", [
    ("events published over REST arrive in order, after ready", live),
    ("a JSON ping is answered by a JSON pong, a protocol ping by a protocol pong", ping),
    ("a publish sent in fragments is acknowledged and arrives as a live event", fragments),
    ("after a cut and kill -9, a client with last_event_id receives exactly the missed events, then live events", resume),
    ("a bad credential gets 401 before the upgrade", refusal),
])
