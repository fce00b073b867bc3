# The recipes. `.ci/run` has every check of CI and does not need `just`.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the recipes.
default:
    @just --list --unsorted

# Run the checks of CI: all of them, or the named ones, such as `just ci fmt lint`.
[group('checks')]
ci *steps:
    .ci/run {{ steps }}

# Write the API documents, the table of events and the clients' types again, from the code and a run.
[group('checks')]
api-docs:
    UPDATE_DOCS=1 cargo test --locked --test openapi
    UPDATE_DOCS=1 cargo test --locked --lib -- event::generate http::api_docs
    node clients/typescript/scripts/generate.mjs

# Run the Autobahn fuzzing client, strict: all cases except permessage-deflate (12.*, 13.*).
[group('checks')]
autobahn cases="*":
    tests/autobahn/run --cases '{{ cases }}'

# Cut the power at random points, restart, and compare with what was acknowledged.
[group('faults')]
powercut points="60":
    tests/powercut/run --points {{ points }}

# Kill the daemon, and cut the power, while it migrates a data directory of layout 3.
[group('faults')]
migrate points="40" cuts="40":
    tests/powercut/migrate --points {{ points }} --cuts {{ cuts }}

# Run 100 cycles of kill -9 under load.
[group('faults')]
kill9 cycles="100":
    NERVEWIRE_KILL9_CYCLES={{ cycles }} cargo test --release --test kill9 -- --nocapture

# Kill the daemon while producers stream; every stream must have its whole text and one end.
[group('faults')]
kill9-streams kills="1000":
    NERVEWIRE_STREAM_KILLS={{ kills }} cargo test --release --test streams_kill9 -- --nocapture

# Kill the daemon at many points during changes of every kind; records, events and search must agree.
[group('faults')]
kill9-resources points="1000":
    NERVEWIRE_KILL9_POINTS={{ points }} cargo test --release --test resources_kill9 -- --nocapture

# Put a load on a separate daemon: `just load fanout --subscribers 10000 --burst 8 --floor`.
[group('measurements')]
load *arguments: load-build
    target/release/nervewire bench {{ arguments }}

# Read a page of each list among 1,000 rows and among very many: run time and ratio.
[group('measurements')]
bench-lists rows="1000000":
    NERVEWIRE_LIST_ROWS={{ rows }} cargo bench --locked --bench lists

# Build the binary and the baselines that it is compared with.
[private]
load-build:
    cargo build --locked --release --bin nervewire --examples

# Measure CPU per delivery, one event at a time, with 1,000 and 10,000 subscribers.
[group('measurements')]
bench-fanout runs="5": load-build
    target/release/nervewire bench fanout --floor --runs {{ runs }} --bar 'cpu<=1.10x' --bar 'user<=0.6'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --subscribers 10000 --events 60 --bar 'cpu<=1.10x' --bar 'user<=0.6'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --bar 'cpu<=1.15x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --subscribers 10000 --events 60 --bar 'cpu<=1.15x'

# Measure CPU per delivery of events sent together: bursts of 8 to 10,000, up to 32 outstanding to 1,000.
[group('measurements')]
bench-together runs="5": load-build
    target/release/nervewire bench fanout --floor --runs {{ runs }} --subscribers 10000 --events 40 --burst 8 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --events 4000 --outstanding 32 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --subscribers 10000 --events 40 --burst 8 --bar 'cpu<=1.20x'
    target/release/nervewire bench fanout --floor --runs {{ runs }} --transport sse --events 4000 --outstanding 32 --bar 'cpu<=1.20x'

# Measure the memory of idle connections, and whether it is returned.
[group('measurements')]
bench-idle runs="5": load-build
    target/release/nervewire bench idle --runs {{ runs }} --bar 'bytes<=400' --bar 'second<=5'
    target/release/nervewire bench idle --runs {{ runs }} --transport sse --bar 'bytes<=400' --bar 'second<=5'
    target/release/nervewire bench idle --runs {{ runs }} --transport h2 --bar 'bytes<=12288' --bar 'second<=5'

# Measure the time from publish to receipt at 20 publishes per second to 1,000 subscribers.
[group('measurements')]
bench-latency runs="5": load-build
    target/release/nervewire bench latency --floor --runs {{ runs }} --bar 'p50<=1.25x' --bar 'p99<=1.25x'

# Measure connections opened, authenticated, made ready and closed per second.
[group('measurements')]
bench-churn runs="5": load-build
    target/release/nervewire bench churn --floor --runs {{ runs }} --bar 'rate>=0.5x'

# Resume 5,000 subscribers at once, 2,000 events behind, and measure another tenant's latency meanwhile.
[group('measurements')]
bench-resume transport="ws" runs="5": load-build
    target/release/nervewire bench resume --transport {{ transport }} --runs {{ runs }} --bar 'spread<=2' --bar 'live_ratio<=2' --bar 'sent_ratio<=2'

# Run a loud tenant with stalled subscribers beside a quiet one.
[group('measurements')]
bench-noisy transport="ws" runs="5": load-build
    target/release/nervewire bench noisy --transport {{ transport }} --runs {{ runs }} --bar 'sent_share<=1'

# Measure CPU per chunk among 10,000 request ids over that among 100, for the daemon and the floor.
[group('measurements')]
bench-request-ids transport="ws" runs="5": load-build
    target/release/nervewire bench request-ids --floor --transport {{ transport }} --runs {{ runs }} --bar 'many_over_few<=1.3'

# Measure LLM streams: chunks a second, CPU over plain events, late readers, idle streams; cut and kill everything.
[group('measurements')]
bench-streams runs="5": load-build
    target/release/nervewire bench streams --runs {{ runs }} --rate 0 --producers 16 --alone --bar 'durable>=50000' --bar 'delivered>=50000'
    target/release/nervewire bench streams --runs {{ runs }} --rate 0 --via ndjson --alone --bar 'durable>=50000' --bar 'delivered>=50000'
    target/release/nervewire bench streams --runs {{ runs }} --bar 'over_plain<=1.3'
    target/release/nervewire bench streams --readers 2 --cuts 100 --kill
    target/release/nervewire bench late-join --runs {{ runs }} --bar 'long_over_short<=2'
    target/release/nervewire bench idle-streams --runs {{ runs }} --bar 'bytes<=1024'

# Open a million connections over in-memory sockets: bytes, heartbeats, fan-out without the kernel.
[group('measurements')]
bench-million:
    cargo bench --locked --bench million

# Measure acknowledged events per second from 512 clients, and one client's ack against a bare commit.
[group('measurements')]
bench-publish runs="5": load-build
    target/release/nervewire bench publish --runs {{ runs }} --bar 'rate>=25000'
    target/release/nervewire bench publish --runs {{ runs }} --protocol ws --bar 'rate>=50000'
    target/release/nervewire bench publish --runs {{ runs }} --batch 100 --bar 'rate>=300000'
    target/release/nervewire bench publish --runs {{ runs }} --batch 100 --ack memory --bar 'rate>=500000'
    target/release/nervewire bench publish --runs {{ runs }} --clients 1 --floor --bar 'p50<=1.3x'

# Measure this code and an older executable alternately: `just compare singles OLD`.
[group('measurements')]
compare what before runs="3": load-build
    benches/compare {{ what }} {{ before }} {{ runs }}
