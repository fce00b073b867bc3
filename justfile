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

# The TypeScript client: compiled, its types compared with docs/api, tested in Node and Chromium against the release binary.
typescript:
    .ci/run typescript

# The systemd units and the daemon's side of their bargain.
systemd:
    tests/systemd/run

# Requests made from the OpenAPI document, good and bad.
schemathesis *arguments:
    tests/schemathesis/run {{ arguments }}

# The API's documents and their examples, written anew from the code and a run against it.
api-docs:
    UPDATE_DOCS=1 cargo test --locked --test openapi
    UPDATE_DOCS=1 cargo test --locked --lib http::api

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

# kill -9 at so many points amid changes of every kind: records, events and search agree.
kill9-resources points="1000":
    NERVEWIRE_KILL9_POINTS={{ points }} cargo test --release --test resources_kill9 -- --nocapture

# A load on a daemon of its own: `just load fanout --subscribers 10000 --burst 8 --floor`. See docs/benchmarks.md.
load *arguments: load-build
    target/release/nervewire bench {{ arguments }}

# A page of each list among 1,000 rows and among very many: run time and ratio.
bench-lists rows="1000000":
    NERVEWIRE_LIST_ROWS={{ rows }} cargo bench --locked --bench lists

# The binary and the baselines it is measured beside.
load-build:
    cargo build --locked --release --bin nervewire --examples

# CPU per delivery, one event at a time, 1,000 and 10,000 subscribers.
bench-fanout runs="5": load-build
    target/release/nervewire bench fanout --floor --runs {{ runs }} --bar 'cpu<=1.10x' --bar 'user<=0.6'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --subscribers 10000 --events 60 --bar 'cpu<=1.10x' --bar 'user<=0.6'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --bar 'cpu<=1.15x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --subscribers 10000 --events 60 --bar 'cpu<=1.15x'

# CPU per delivery where events go together: bursts of 8 to 10,000, up to 32 outstanding to 1,000.
bench-together runs="5": load-build
    target/release/nervewire bench fanout --floor --runs {{ runs }} --subscribers 10000 --events 40 --burst 8 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --events 4000 --outstanding 32 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --subscribers 10000 --events 40 --burst 8 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --events 4000 --outstanding 32 --bar 'cpu<=1.20x'

# Memory of idle connections and whether it comes back.
bench-idle runs="5": load-build
    target/release/nervewire bench idle --runs {{ runs }} --bar 'bytes<=400' --bar 'second<=5'
    target/release/nervewire bench idle --runs {{ runs }} --transport sse --bar 'bytes<=400' --bar 'second<=5'
    target/release/nervewire bench idle --runs {{ runs }} --transport h2 --bar 'bytes<=12288' --bar 'second<=5'

# Publish to receipt at 20 publishes a second to 1,000 subscribers.
bench-latency runs="5": load-build
    target/release/nervewire bench latency --floor --runs {{ runs }} --bar 'p50<=1.25x' --bar 'p99<=1.25x'

# Connections opened, authenticated, made ready and closed in a second.
bench-churn runs="5": load-build
    target/release/nervewire bench churn --floor --runs {{ runs }} --bar 'rate>=0.5x'

# 5,000 subscribers come back at once, 2,000 events behind; another tenant's latency meanwhile.
bench-resume transport="ws" runs="5": load-build
    target/release/nervewire bench resume --transport {{ transport }} --runs {{ runs }} --bar 'spread<=2' --bar 'live_ratio<=2' --bar 'sent_ratio<=2'

# A loud tenant with stalled subscribers beside a quiet one.
bench-noisy transport="ws" runs="5": load-build
    target/release/nervewire bench noisy --transport {{ transport }} --runs {{ runs }} --bar 'sent_share<=1'

# CPU per chunk among 10,000 token streams over that among 100, the daemon's and the floor's.
bench-streams transport="ws" runs="5": load-build
    target/release/nervewire bench streams --floor --transport {{ transport }} --runs {{ runs }} --bar 'many_over_few<=1.3'

# A million connections over in-memory sockets: bytes, heartbeats, fan-out without the kernel.
bench-million:
    cargo bench --locked --bench million

# Acknowledged events a second from 512 clients, and one client's ack against a bare commit.
bench-publish runs="5": load-build
    target/release/nervewire bench publish --runs {{ runs }} --bar 'rate>=25000'
    target/release/nervewire bench publish --runs {{ runs }} --protocol ws --bar 'rate>=50000'
    target/release/nervewire bench publish --runs {{ runs }} --batch 100 --bar 'rate>=300000'
    target/release/nervewire bench publish --runs {{ runs }} --batch 100 --ack memory --bar 'rate>=500000'
    target/release/nervewire bench publish --runs {{ runs }} --clients 1 --floor --bar 'p50<=1.3x'
