#!/bin/sh
# Builds all fuzzers and runs one of them:
#
#     ./run.sh TARGET [SECONDS] [libFuzzer options]    runs TARGET for SECONDS (default 30)
#     ./run.sh build                                   only builds
set -eu
cd "$(dirname "$0")"
target=${1:?name a target: ws_inbound event_parse cursor_filter sse_encode client_frame journal stored_piece}
seconds=${2:-30}
shift; [ $# -eq 0 ] || shift

host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 # allows the unstable flags that sanitizers need with a stable compiler
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cargo build --release --target "$host" --target-dir target
[ "$target" != build ] || exit 0

mkdir -p "corpus/$target" "artifacts/$target"
exec "target/$host/release/$target" "corpus/$target" "seeds/$target" \
    -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" -max_len=4096 -timeout=5 "$@"
