# The checks of CI, by name. `.ci/run` has the same commands and does not need `just`.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the recipes.
default:
    @just --list

# Run everything that CI runs, in its order.
ci:
    .ci/run

# Check the formatting.
fmt:
    .ci/run fmt

# Run clippy on all targets; warnings are errors.
lint:
    .ci/run lint

# Run unit, property and black-box tests.
test:
    .ci/run test

# Run the code of the ring and the waker under loom.
loom:
    .ci/run loom

# Build the API documentation; broken links are errors.
doc:
    .ci/run doc

# Run every fuzz target for some seconds.
fuzz-smoke seconds="8":
    FUZZ_SECONDS={{ seconds }} .ci/run fuzz

# Compile the benchmarks and run each once.
bench-build:
    .ci/run bench

# Run the benchmarks and measure.
bench *arguments:
    cargo bench {{ arguments }}

# Test npm, PyPI and Chromium clients with the release binary, all or the named ones.
clients *names:
    tests/clients/run {{ names }}

# Compile the TypeScript client, compare its types with docs/api, and test it in Node and Chromium.
typescript:
    .ci/run typescript

# Test the systemd units with the daemon.
systemd:
    tests/systemd/run

# Test requests generated from the OpenAPI document, valid and invalid.
schemathesis *arguments:
    tests/schemathesis/run {{ arguments }}

# Write the API documents and their examples again, from the code and a run against it.
api-docs:
    UPDATE_DOCS=1 cargo test --locked --test openapi
    UPDATE_DOCS=1 cargo test --locked --lib http::api_docs

# Check bans, licences and sources of dependencies; needs no network.
deny:
    cargo deny --offline --locked --workspace check bans licenses sources

# Run the Autobahn fuzzing client, strict: all cases except permessage-deflate (12.*, 13.*).
autobahn cases="*":
    tests/autobahn/run --cases '{{ cases }}'

# Cut the power at random points, restart, and compare with what was acknowledged.
powercut points="60":
    tests/powercut/run --points {{ points }}

# Kill the daemon, and cut the power, while it migrates a data directory of layout 3.
migrate points="40" cuts="40":
    tests/powercut/migrate --points {{ points }} --cuts {{ cuts }}

# Make fdatasync fail under each kind of change, over HTTP.
eio:
    tests/powercut/eio

# Run powercut with an fsync that does nothing; passes if the harness notices.
powercut-liar:
    ! tests/powercut/run --points 12 --lie

# Run 100 cycles of kill -9 under load.
kill9 cycles="100":
    NERVEWIRE_KILL9_CYCLES={{ cycles }} cargo test --release --test kill9 -- --nocapture

# Kill the daemon at many points during changes of every kind; records, events and search must agree.
kill9-resources points="1000":
    NERVEWIRE_KILL9_POINTS={{ points }} cargo test --release --test resources_kill9 -- --nocapture

# Put a load on a separate daemon: `just load fanout --subscribers 10000 --burst 8 --floor`. See
# docs/benchmarks.md.
load *arguments: load-build
    target/release/nervewire bench {{ arguments }}

# Read a page of each list among 1,000 rows and among very many: run time and ratio.
bench-lists rows="1000000":
    NERVEWIRE_LIST_ROWS={{ rows }} cargo bench --locked --bench lists

# Build the binary and the baselines that it is compared with.
load-build:
    cargo build --locked --release --bin nervewire --examples

# Measure CPU per delivery, one event at a time, with 1,000 and 10,000 subscribers.
bench-fanout runs="5": load-build
    target/release/nervewire bench fanout --floor --runs {{ runs }} --bar 'cpu<=1.10x' --bar 'user<=0.6'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --subscribers 10000 --events 60 --bar 'cpu<=1.10x' --bar 'user<=0.6'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --bar 'cpu<=1.15x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --subscribers 10000 --events 60 --bar 'cpu<=1.15x'

# Measure CPU per delivery of events sent together: bursts of 8 to 10,000, up to 32 outstanding to 1,000.
bench-together runs="5": load-build
    target/release/nervewire bench fanout --floor --runs {{ runs }} --subscribers 10000 --events 40 --burst 8 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --events 4000 --outstanding 32 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --subscribers 10000 --events 40 --burst 8 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --events 4000 --outstanding 32 --bar 'cpu<=1.20x'

# Measure the memory of idle connections, and whether it is returned.
bench-idle runs="5": load-build
    target/release/nervewire bench idle --runs {{ runs }} --bar 'bytes<=400' --bar 'second<=5'
    target/release/nervewire bench idle --runs {{ runs }} --transport sse --bar 'bytes<=400' --bar 'second<=5'
    target/release/nervewire bench idle --runs {{ runs }} --transport h2 --bar 'bytes<=12288' --bar 'second<=5'

# Measure the time from publish to receipt at 20 publishes per second to 1,000 subscribers.
bench-latency runs="5": load-build
    target/release/nervewire bench latency --floor --runs {{ runs }} --bar 'p50<=1.25x' --bar 'p99<=1.25x'

# Measure connections opened, authenticated, made ready and closed per second.
bench-churn runs="5": load-build
    target/release/nervewire bench churn --floor --runs {{ runs }} --bar 'rate>=0.5x'

# Resume 5,000 subscribers at once, 2,000 events behind, and measure another tenant's latency meanwhile.
bench-resume transport="ws" runs="5": load-build
    target/release/nervewire bench resume --transport {{ transport }} --runs {{ runs }} --bar 'spread<=2' --bar 'live_ratio<=2' --bar 'sent_ratio<=2'

# Run a loud tenant with stalled subscribers beside a quiet one.
bench-noisy transport="ws" runs="5": load-build
    target/release/nervewire bench noisy --transport {{ transport }} --runs {{ runs }} --bar 'sent_share<=1'

# Measure CPU per chunk among 10,000 token streams over that among 100, for the daemon and the floor.
bench-streams transport="ws" runs="5": load-build
    target/release/nervewire bench streams --floor --transport {{ transport }} --runs {{ runs }} --bar 'many_over_few<=1.3'

# Open a million connections over in-memory sockets: bytes, heartbeats, fan-out without the kernel.
bench-million:
    cargo bench --locked --bench million

# Measure acknowledged events per second from 512 clients, and one client's ack against a bare commit.
bench-publish runs="5": load-build
    target/release/nervewire bench publish --runs {{ runs }} --bar 'rate>=25000'
    target/release/nervewire bench publish --runs {{ runs }} --protocol ws --bar 'rate>=50000'
    target/release/nervewire bench publish --runs {{ runs }} --batch 100 --bar 'rate>=300000'
    target/release/nervewire bench publish --runs {{ runs }} --batch 100 --ack memory --bar 'rate>=500000'
    target/release/nervewire bench publish --runs {{ runs }} --clients 1 --floor --bar 'p50<=1.3x'

# Each recipe below measures the new executable and an older one alternately and prints ratios.

# Compare arrays of 100 from 256 connections, durable, with bare appends and a bare HTTP server.
compare-arrays before runs="5": load-build
    target/release/nervewire bench publish --clients 256 --batch 100 --floor --runs {{ runs }} --before {{ before }} --bar 'rate>=800000' --bar 'cpu<=1.3'
    target/release/nervewire bench publish --clients 256 --batch 100 --body ndjson --runs {{ runs }} --before {{ before }} --bar 'cpu<=1x:before'
    target/release/nervewire bench publish --clients 256 --batch 100 --organizations 10000 --runs {{ runs }} --before {{ before }} --bar 'cpu<=1x:before'

# Compare single events from 256 connections, durable, over HTTP (to 1, 256 and 10,000 organizations) and
# WebSocket.
compare-singles before runs="5": load-build
    target/release/nervewire bench publish --clients 256 --floor --runs {{ runs }} --before {{ before }} --bar 'cpu<=25' --bar 'p99<=1x:before'
    target/release/nervewire bench publish --clients 256 --organizations 256 --runs {{ runs }} --before {{ before }} --bar 'cpu<=25' --bar 'p99<=1x:before'
    target/release/nervewire bench publish --clients 256 --organizations 10000 --runs {{ runs }} --before {{ before }} --bar 'cpu<=25' --bar 'p99<=1x:before'
    target/release/nervewire bench publish --clients 256 --protocol ws --runs {{ runs }} --before {{ before }} --bar 'cpu<=15' --bar 'p99<=1x:before'

# Compare one client's durable acknowledgement with a bare pwrite and fdatasync of the same bytes.
compare-ack before runs="5": load-build
    target/release/nervewire bench publish --clients 1 --floor --runs {{ runs }} --before {{ before }} --bar 'p50<=1.25x:append' --bar 'p50<=1x:before' --bar 'p99<=1x:before'

# Compare creating messages of one agent and user, of 256 and of 10,000, from 256 connections.
compare-messages before runs="5": load-build
    target/release/nervewire bench messages --agents 1 --users 1 --runs {{ runs }} --before {{ before }} --bar 'rate>=1x:before'
    target/release/nervewire bench messages --agents 256 --users 256 --runs {{ runs }} --before {{ before }} --bar 'rate>=1x:before'
    target/release/nervewire bench messages --runs {{ runs }} --before {{ before }} --bar 'rate>=30000'

# Compare bytes written to disk, and disk used, per byte published: events of 1,000 and of 128 bytes, no
# trimming.
compare-written before runs="3": load-build
    target/release/nervewire bench publish --clients 256 --batch 100 --size 1000 --rest 20 --set retention.max_bytes=0 --runs {{ runs }} --before {{ before }} --bar 'written<=1.2' --bar 'disk<=1x:before'
    target/release/nervewire bench publish --clients 256 --batch 100 --rest 20 --set retention.max_bytes=0 --runs {{ runs }} --before {{ before }} --bar 'written_read<=1.2' --bar 'disk<=1x:before'

# Compare the disk used with the data kept, a minute after publishing much more than the limit (1 GiB).
compare-disk before runs="3": load-build
    target/release/nervewire bench publish --clients 256 --batch 100 --size 1000 --seconds 20 --rest 60 --runs {{ runs }} --before {{ before }} --bar 'disk_live<=1.43'

# Compare memory while publishing and while reading a log, with the smallest rings and caches.
compare-memory before runs="3": load-build
    target/release/nervewire bench publish --clients 256 --batch 100 {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'
    target/release/nervewire bench catchup {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'
    target/release/nervewire bench catchup --by pages {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'
    target/release/nervewire bench catchup --readers 100 --megabytes 100 {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'
    target/release/nervewire bench catchup --by pages --readers 100 --megabytes 100 {{ small_memory }} --runs {{ runs }} --before {{ before }} --bar 'peak<=68'

# Four megabytes of rings and caches in total.
small_memory := "--set limits.ring_bytes_per_tenant=2097152 --set limits.ring_bytes_total=2097152 --set store.cache_bytes=1048576 --set store.row_cache_bytes=1048576"

# Compare opening after kill -9 and after a clean end. 20 GB of events need 60 GB in the temporary directory.
compare-open before gigabytes="20" runs="1": load-build
    target/release/nervewire bench open --gigabytes {{ gigabytes }} --patience 600 --runs {{ runs }} --before {{ before }} --bar 'killed<=2' --bar 'clean<=0.2'

# Compare catching up over SSE: one reader of 500 MB, 100 readers of 100 MB.
compare-catchup before runs="3": load-build
    target/release/nervewire bench catchup --runs {{ runs }} --before {{ before }} --bar 'per_cpu>=2x:before'
    target/release/nervewire bench catchup --readers 100 --megabytes 100 --runs {{ runs }} --before {{ before }} --bar 'per_cpu>=2x:before'

# Compare reading the same events page by page over GET.
compare-history before runs="3": load-build
    target/release/nervewire bench catchup --by pages --runs {{ runs }} --before {{ before }} --bar 'per_cpu>=4x:before'
    target/release/nervewire bench catchup --by pages --readers 100 --megabytes 100 --runs {{ runs }} --before {{ before }} --bar 'per_cpu>=4x:before'

# Compare what must not get worse: fan-out, idle connections, latency, connecting, resuming.
compare-live before runs="5": load-build
    target/release/nervewire bench fanout --runs {{ runs }} --before {{ before }} --bar 'cpu<=1.03x:before'
    target/release/nervewire bench fanout --transport sse --runs {{ runs }} --before {{ before }} --bar 'cpu<=1.03x:before'
    target/release/nervewire bench fanout --subscribers 10000 --burst 8 --events 40 --runs {{ runs }} --before {{ before }} --bar 'cpu<=1.03x:before'
    target/release/nervewire bench idle --runs {{ runs }} --before {{ before }} --bar 'bytes<=1.03x:before'
    target/release/nervewire bench latency --runs {{ runs }} --before {{ before }} --bar 'p50<=1.03x:before' --bar 'p99<=1.03x:before'
    target/release/nervewire bench churn --runs {{ runs }} --before {{ before }} --bar 'rate>=0.97x:before'
    target/release/nervewire bench resume --runs {{ runs }} --before {{ before }} --bar 'median<=1.03x:before'

# Compare lists and search of the new executable and an older one, one after the other.
compare-lists before rows="1000000":
    NERVEWIRE_BIN={{ before }} NERVEWIRE_LIST_ROWS={{ rows }} cargo bench --locked --bench lists
    NERVEWIRE_LIST_ROWS={{ rows }} cargo bench --locked --bench lists
