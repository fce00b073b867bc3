"""Tests PyPI `requests` (`iter_lines`) and `sseclient-py`: they pass on each event when it is published, not
only when later bytes arrive.

Both read a body in parts. If the body ends with its connection, they wait until a part is full. If the body
is chunked, each chunk is a part. A keep-alive would also fill a part, so the test fails if one arrives before
an event.
"""

import json

import requests
import sseclient

from story import BEARER, DIRECT, LIMIT, api, publish, tell

CHANNEL = "clients/requests"


def open_stream():
    response = requests.get(
        f"{DIRECT}/api/v1/sse", params={"channel": CHANNEL}, headers={**BEARER, "Accept": "text/event-stream"}, stream=True, timeout=LIMIT
    )
    assert response.status_code == 200, response.status_code
    return response


def lines_are_prompt():
    with open_stream() as response:
        lines = response.iter_lines(decode_unicode=True)
        assert next(lines) == "retry: 2000"
        while next(lines):  # skips `ready`, up to its blank line
            pass
        for n in range(3):
            (id,) = publish(CHANNEL, [n])
            assert next(lines) == f"id: {id}", "something else arrived before the event"
            name, data = next(lines).split(": ", 1)
            assert name == "data" and json.loads(data)["data"]["n"] == n, data
            assert next(lines) == ""


def events_are_prompt_and_the_last_comes():
    with open_stream() as response:
        events = sseclient.SSEClient(response).events()
        ready = next(events)
        assert ready.event == "ready" and int(ready.retry) == 2000, ready
        for n in range(3):
            (id,) = publish(CHANNEL, [n])
            event = next(events)
            assert (event.event, event.id, json.loads(event.data)["data"]["n"]) == ("message", id, n), event
        api("DELETE", f"/api/v1/connections/{json.loads(ready.data)['connection_id']}")
        assert next(events).event == "closing"
        assert list(events) == [], "events after closing"


tell("requests", [
    ("iter_lines returns each event when it is published", lines_are_prompt),
    ("sseclient-py returns each event when it is published, including the last one", events_are_prompt_and_the_last_comes),
])
