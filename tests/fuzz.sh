#!/usr/bin/env bash
# Builds every fuzz target and runs each for a while: tests/fuzz.sh [SECONDS] [TARGET...]
# New inputs and crashes are left below target/fuzz; the committed corpus is only read.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-10}
out=$PWD/target/fuzz
export PATH=$PATH:$PWD/target/tools/bin CARGO_TERM_QUIET=true

# cargo-fuzz needs unstable flags: a nightly takes them, and so does a stable compiler that is told to.
cargo=(cargo)
if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
    cargo=(cargo "+$(rustup toolchain list | awk '/^nightly/ { print $1; exit }')")
else
    export RUSTC_BOOTSTRAP=1
fi
if ! command -v cargo-fuzz >/dev/null; then
    CARGO_TARGET_DIR=target/tools/build cargo install --quiet --locked --root target/tools cargo-fuzz@0.13.2
fi

# Without the address sanitizer: the crate forbids unsafe code, and runs are twice as fast.
"${cargo[@]}" fuzz build --sanitizer none --target-dir "$out"
targets=("${@:2}")
if ((${#targets[@]} == 0)); then
    read -ra targets <<<"$("${cargo[@]}" fuzz list | tr '\n' ' ')"
fi
host=$(rustc -vV | awk '/^host:/ { print $2 }')
for target in "${targets[@]}"; do
    found=$out/found/$target
    mkdir -p "$found" "$out/crashes"
    log=$out/$target.log
    words=()
    [[ -e fuzz/$target.dict ]] && words=("-dict=fuzz/$target.dict")
    echo "$target for $seconds s"
    if ! "$out/$host/release/$target" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
        -verbosity=0 -print_final_stats=1 -artifact_prefix="$out/crashes/$target-" "${words[@]}" \
        "$found" "fuzz/corpus/$target" >"$log" 2>&1; then
        tail -50 "$log" >&2
        exit 1
    fi
    grep number_of_executed_units "$log" || true
done
