"""Hooks for what a schema does not tell schemathesis: which ids exist, that limits are in bytes, and how
parameters depend on each other.
"""

import base64
import os
import re

import schemathesis
from hypothesis import strategies

# The smallest limit of any text, in bytes. A text of at most this size is accepted everywhere.
BYTES = 64

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Page cursors as the daemon encodes them: a number and an id.
number = strategies.integers(0, 2**63).map(lambda number: number.to_bytes(8, "big"))
identity = strategies.text(min_size=1, max_size=40).filter(lambda text: "\ud800" > text or text > "\udfff")
schemathesis.openapi.format(
    "page-cursor",
    strategies.just("") | strategies.builds(
        lambda number, identity: base64.urlsafe_b64encode(number + identity.encode(errors="replace")).rstrip(b"=").decode(),
        number, identity,
    ),
)


def is_page_cursor(text):
    """Returns whether a text of base64url letters is a page cursor, which a pattern cannot express."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text and len(raw[8:].decode()) > 0
    except ValueError:
        return False


def fits(value):
    """Returns whether every text that is not ASCII is short: a schema counts characters, the daemon bytes."""
    if isinstance(value, str):
        return value.isascii() or len(value.encode(errors="replace")) <= BYTES
    if isinstance(value, dict):
        return all(fits(key) and fits(one) for key, one in value.items())
    return not isinstance(value, list) or all(map(fits, value))


@schemathesis.hook
def filter_body(context, body):
    return fits(body)


@schemathesis.hook
def filter_query(context, query):
    return fits(query)


@schemathesis.hook
def before_call(context, case, kwargs):
    label, query, headers = case.operation.label, case.query or {}, case.headers or {}
    body = case.body if isinstance(case.body, dict) else {}
    # A message or a memory needs an agent that exists. A random agent gets 400.
    agent = body.get("agent_id")
    if label in ("POST /api/v1/messages", "POST /api/v1/memories") and isinstance(agent, str) and 0 < len(agent) <= 256 and not CONTROL.search(agent):
        body["agent_id"] = os.environ["AN_AGENT"]
    # An API key is not a user, so the request has to name one.
    if label in ("POST /api/v1/messages", "POST /api/v1/agents/{id}/messages") and body and body.get("user_id") is None:
        body["user_id"] = "alice"
    # The text of a block must fit into its limit, and so must the text that the block already has.
    if "core-memory" in label and isinstance(body.get("value"), str) and type(body.get("limit")) in (int, float, type(None)) and 1 <= (body.get("limit") or 1) <= 10_000:
        body["limit"] = 10_000
    # The path already names the organization.
    if label == "POST /api/v1/organizations/{id}/members" and body:
        body.pop("organization_id", None)
    # A search needs at least one word.
    for place in (body, query):
        if "/memories/search" in label and isinstance(place.get("query"), str) and len(place["query"]) < 1_000:
            place["query"] += " x"
    if label == "GET /api/v1/memories/search" and "query" not in query:
        query = case.query = {**query, "query": "x"}
    # A poll that waits for a minute proves no more than one that waits for a second.
    if label == "GET /api/v1/events" and str(query.get("wait", "")).isdecimal() and 1 < int(query["wait"]) <= 60:
        query["wait"] = "1"
    # The schema of one parameter cannot express relations between parameters. One of these two is required.
    if label == "DELETE /api/v1/connections" and not ("user" in query or "key" in query):
        case.query = {**query, "user": "nobody"}
    # These two must not be used together.
    if query.get("cursor") and query.get("offset") not in (None, ""):
        del query["offset"]
    # A page must not be used together with either of them, and a page that is too far is refused.
    if "page" in query and (query.get("cursor") or query.get("offset") or str(query["page"]).isdecimal() and 100 < int(query["page"]) <= 10_000):
        del query["page"]
    # A cursor belongs to one list. These lists refuse the cursors that are generated here.
    if label in ("GET /api/v1/connections", "GET /api/v1/presence", "GET /api/v1/memories/{id}/history"):
        query.pop("cursor", None)
    # A random text of base64url letters is not a cursor.
    if re.fullmatch("[A-Za-z0-9_-]+", str(query.get("cursor", ""))) and not is_page_cursor(query["cursor"]):
        del query["cursor"]
    # schemathesis treats an empty header as missing, whatever its pattern is.
    if headers.get("If-Match") == "":
        del headers["If-Match"]
