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

# Kills the daemon, and cuts the power, while it takes over a data directory of layout 3.
migrate points="40" cuts="40":
    tests/powercut/migrate --points {{ points }} --cuts {{ cuts }}

# Lets fdatasync fail under each kind of change, over HTTP.
eio:
    tests/powercut/eio

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

# Each of the recipes below measures the executable just built and an older one in turns, and tells ratios.

# Arrays of 100 from 256 connections, durable; bare appends and a bare HTTP server beside.
compare-arrays before runs="5": load-build
    target/release/nervewire bench publish --clients 256 --batch 100 --floor --runs {{ runs }} --before {{ before }} --bar 'rate>=800000' --bar 'cpu<=1.3'
    target/release/nervewire bench publish --clients 256 --batch 100 --body ndjson --runs {{ runs }} --before {{ before }} --bar 'cpu<=1x:before'
    target/release/nervewire bench publish --clients 256 --batch 100 --organizations 10000 --runs {{ runs }} --before {{ before }} --bar 'cpu<=1x:before'

# Single events from 256 connections, durable, over HTTP (to one organization, to 256, to 10,000) and over WebSocket.
compare-singles before runs="5": load-build
    target/release/nervewire bench publish --clients 256 --floor --runs {{ runs }} --before {{ before }} --bar 'cpu<=25' --bar 'p99<=1x:before'
    target/release/nervewire bench publish --clients 256 --organizations 256 --runs {{ runs }} --before {{ before }} --bar 'cpu<=25' --bar 'p99<=1x:before'
    target/release/nervewire bench publish --clients 256 --organizations 10000 --runs {{ runs }} --before {{ before }} --bar 'cpu<=25' --bar 'p99<=1x:before'
    target/release/nervewire bench publish --clients 256 --protocol ws --runs {{ runs }} --before {{ before }} --bar 'cpu<=15' --bar 'p99<=1x:before'

# One client's durable acknowledgement against a bare pwrite and fdatasync of the same bytes.
compare-ack before runs="5": load-build
    target/release/nervewire bench publish --clients 1 --floor --runs {{ runs }} --before {{ before }} --bar 'p50<=1.25x:append' --bar 'p50<=1x:before' --bar 'p99<=1x:before'

# Creating messages of one agent and user, of 256 and of 10,000, from 256 connections.
compare-messages before runs="5": load-build
    target/release/nervewire bench messages --agents 1 --users 1 --runs {{ runs }} --before {{ before }} --bar 'rate>=1x:before'
    target/release/nervewire bench messages --agents 256 --users 256 --runs {{ runs }} --before {{ before }} --bar 'rate>=1x:before'
    target/release/nervewire bench messages --runs {{ runs }} --before {{ before }} --bar 'rate>=30000'

# Bytes written to disk and disk taken per byte published: events of 1,000 and of 128 bytes, nothing trimmed.
compare-written before runs="3": load-build
    target/release/nervewire bench publish --clients 256 --batch 100 --size 1000 --rest 20 --set retention.max_bytes=0 --runs {{ runs }} --before {{ before }} --bar 'written<=1.2' --bar 'disk<=1x:before'
    target/release/nervewire bench publish --clients 256 --batch 100 --rest 20 --set retention.max_bytes=0 --runs {{ runs }} --before {{ before }} --bar 'written_read<=1.2' --bar 'disk<=1x:before'

# Disk over what is kept, a minute after much more was published than the organization may keep (1 GiB).
compare-disk before runs="3": load-build
    target/release/nervewire bench publish --clients 256 --batch 100 --size 1000 --seconds 20 --rest 60 --runs {{ runs }} --before {{ before }} --bar 'disk_live<=1.43'

# Memory while publishing and while a log is read, with rings and caches at their least.
compare-memory before runs="3": load-build
    target/release/nervewire bench publish --clients 256 --batch 100 {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'
    target/release/nervewire bench catchup {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'
    target/release/nervewire bench catchup --by pages {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'
    target/release/nervewire bench catchup --readers 100 --megabytes 100 {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'
    target/release/nervewire bench catchup --by pages --readers 100 --megabytes 100 {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'

# Four megabytes of rings and caches in all.
small_memory := "--set limits.ring_bytes_per_tenant=2097152 --set limits.ring_bytes_total=2097152 --set store.cache_bytes=1048576 --set store.row_cache_bytes=1048576"

# Opening after kill -9 and after an orderly end. 20 GB of events need 60 GB of room in the temporary directory.
compare-open before gigabytes="20" runs="1": load-build
    target/release/nervewire bench open --gigabytes {{ gigabytes }} --patience 600 --runs {{ runs }} --before {{ before }} --bar 'killed<=2' --bar 'clean<=0.2'

# Catching up over SSE: one reader of 500 MB, 100 of 100 MB.
compare-catchup before runs="3": load-build
    target/release/nervewire bench catchup --runs {{ runs }} --before {{ before }} --bar 'per_cpu>=2x:before'
    target/release/nervewire bench catchup --readers 100 --megabytes 100 --runs {{ runs }} --before {{ before }} --bar 'per_cpu>=2x:before'

# The same page by page over GET.
compare-history before runs="3": load-build
    target/release/nervewire bench catchup --by pages --runs {{ runs }} --before {{ before }} --bar 'per_cpu>=4x:before'
    target/release/nervewire bench catchup --by pages --readers 100 --megabytes 100 --runs {{ runs }} --before {{ before }} --bar 'per_cpu>=4x:before'

# What must stay: fan-out, idle connections, latency, connecting, coming back.
compare-live before runs="5": load-build
    target/release/nervewire bench fanout --runs {{ runs }} --before {{ before }} --bar 'cpu<=1.03x:before'
    target/release/nervewire bench fanout --transport sse --runs {{ runs }} --before {{ before }} --bar 'cpu<=1.03x:before'
    target/release/nervewire bench fanout --subscribers 10000 --burst 8 --events 40 --runs {{ runs }} --before {{ before }} --bar 'cpu<=1.03x:before'
    target/release/nervewire bench idle --runs {{ runs }} --before {{ before }} --bar 'bytes<=1.03x:before'
    target/release/nervewire bench latency --runs {{ runs }} --before {{ before }} --bar 'p50<=1.03x:before' --bar 'p99<=1.03x:before'
    target/release/nervewire bench churn --runs {{ runs }} --before {{ before }} --bar 'rate>=0.97x:before'
    target/release/nervewire bench resume --runs {{ runs }} --before {{ before }} --bar 'median<=1.03x:before'

# Lists and search of the executable just built and of an older one, one after the other.
compare-lists before rows="1000000":
    NERVEWIRE_BIN={{ before }} NERVEWIRE_LIST_ROWS={{ rows }} cargo bench --locked --bench lists
    NERVEWIRE_LIST_ROWS={{ rows }} cargo bench --locked --bench lists
