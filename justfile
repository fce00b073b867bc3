# What CI runs, by name. `.ci/run` holds the same commands and does not need `just`.

set shell := ["bash", "-euo", "pipefail", "-c"]

# The recipes.
default:
    @just --list

# Everything CI runs, in its order.
ci:
    .ci/run

# Formatting, checked only.
fmt:
    .ci/run fmt

# clippy on all targets, warnings are errors.
lint:
    .ci/run lint

# Unit, property and black-box tests.
test:
    .ci/run test

# The ring's and the waker's code under loom.
loom:
    .ci/run loom

# API documentation, broken links are errors.
doc:
    .ci/run doc

# Every fuzz target for some seconds each.
fuzz-smoke seconds="8":
    FUZZ_SECONDS={{ seconds }} .ci/run fuzz

# The benches compile and run once each.
bench-build:
    .ci/run bench

# The benches, measured.
bench *arguments:
    cargo bench {{ arguments }}

# npm, PyPI and Chromium clients against the release binary; name some to run only those.
clients *names:
    tests/clients/run {{ names }}

# The systemd units and the daemon's side of their bargain.
systemd:
    tests/systemd/run

# Bans, licences and sources of dependencies: needs no network.
deny:
    cargo deny --offline --locked check bans licenses sources

# The Autobahn fuzzing client, strict: all cases but permessage-deflate (12.*, 13.*).
autobahn cases="*":
    tests/autobahn/run --cases '{{ cases }}'

# Power loss at random points, each started anew and compared with what was acknowledged.
powercut points="60":
    tests/powercut/run --points {{ points }}

# The same with fsync doing nothing: passes when the harness notices.
powercut-liar:
    ! tests/powercut/run --points 12 --lie

# 100 cycles of kill -9 under load.
kill9 cycles="100":
    NERVEWIRE_KILL9_CYCLES={{ cycles }} cargo test --release --test kill9 -- --nocapture

# User memory per idle WebSocket and SSE connection, 5,000 each.
idle:
    cargo bench --bench figures -- idle

# CPU per delivery to 1,000 subscribers: of one event, and of 32 published together.
fanout:
    cargo bench --bench figures -- fanout

# 5,000 subscribers come back at once, 2,000 events behind; another tenant's latency meanwhile.
bench-resume transport="ws":
    target/release/nervewire bench resume --transport {{ transport }} --runs 5 --bar 'spread<=2' --bar 'live_ratio<=2' --bar 'sent_ratio<=2'

# A loud tenant with stalled subscribers beside a quiet one.
bench-noisy transport="ws":
    target/release/nervewire bench noisy --transport {{ transport }} --runs 5 --bar 'sent_share<=1'

# CPU per chunk among 10,000 token streams over that among 100.
bench-streams transport="ws":
    target/release/nervewire bench streams --transport {{ transport }} --runs 5 --bar 'many_over_few<=1.3'
