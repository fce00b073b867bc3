"""Reads Autobahn's JSON report and fails unless every case is strictly OK.

* `behavior` (what happened to the messages) and `behaviorClose` (how the connection ended) must both be OK.
  NON-STRICT, UNCLEAN, WRONG CODE, FAILED and any unknown value fail.
* INFORMATIONAL passes only for the three cases that always report it.
* If all cases were requested, the report must contain all of them. Otherwise a truncated report would pass.
"""

import json
import sys

ALWAYS_INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
# Number of cases of autobahntestsuite 25.10.1, without 12.* and 13.*.
ALL_CASES = 301


def fine(case, verdict):
    return verdict == "OK" or (verdict == "INFORMATIONAL" and case in ALWAYS_INFORMATIONAL)


def order(case):
    return [int(part) for part in case.split(".")]


def main(path, expected):
    with open(path) as f:
        agents = json.load(f)
    if len(agents) != 1:
        sys.exit(f"one agent expected in {path}, found {sorted(agents)}")
    (cases,) = agents.values()
    bad = [
        (case, result["behavior"], result["behaviorClose"], result.get("remoteCloseCode"))
        for case, result in sorted(cases.items(), key=lambda item: order(item[0]))
        if not (fine(case, result["behavior"]) and fine(case, result["behaviorClose"]))
    ]
    for case, behavior, close, code in bad:
        print(f"not ok {case}: behavior {behavior}, close {close}, peer's close code {code}")
    if expected == "all" and len(cases) != ALL_CASES:
        print(f"not ok: {len(cases)} cases ran, {ALL_CASES} expected")
        bad.append(None)
    if not cases:
        sys.exit("no case ran")
    print(f"autobahn: {len(cases)} cases, {len(bad)} not strictly OK")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
