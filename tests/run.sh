#!/usr/bin/env bash
# Installs what the tests need and runs all of them. Needs a Rust toolchain on Debian or Ubuntu; everything but Debian
# packages and cargo's own cache goes below target/. FUZZ_SECONDS (10) is how long each fuzz target runs,
# SOAK_SECONDS (20) how long the mixed clients do.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$PWD/target
mkdir -p "$scratch/tests"
export CARGO_TARGET_DIR=$scratch
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export PIP_CACHE_DIR=$scratch/tests/pip-cache PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
export npm_config_cache=$scratch/tests/npm-cache npm_config_update_notifier=false
export PATH=$PATH:$scratch/tools/bin
exec </dev/null

current=start
trap 'status=$?; ((status == 0)) || echo "FAILED: $current"' EXIT
step() {
    current=$1
    echo "== $1 (after $((SECONDS / 60)) min $((SECONDS % 60)) s)"
}

step "tools"
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || { echo "There is no cargo: install Rust from https://rustup.rs first." >&2; exit 1; }
deploy/tools.sh cmake make cc c++ curl python3 python3-venv ffmpeg openssl testssl pebble tinyproxy slowhttptest
# Only for one issuance, which is skipped without it. Unpacked, not installed: its package would start a server on port 80.
command -v caddy >/dev/null || (
    cd "$scratch/tests" && apt-get download -qq caddy && dpkg-deb -x caddy_*.deb caddy && mkdir -p ../tools/bin &&
        ln -sf ../../tests/caddy/usr/bin/caddy ../tools/bin/
) || echo "SKIPPED: there is no caddy to be had"
tests/clients/install.sh "$scratch/tests/clients"

step "cargo fmt"
cargo fmt --check

step "cargo clippy"
cargo clippy --quiet --locked --all-targets -- -D warnings

step "one TLS stack, one crypto provider"
if cargo tree --locked --edges normal,build,dev --prefix none | grep -E '^(aws-lc-rs|aws-lc-sys|openssl|openssl-sys|native-tls|boring) '; then
    echo "These must not be in the tree." >&2
    exit 1
fi

step "cargo test"
cargo test --quiet --locked --no-fail-fast 2>&1 | tee "$scratch/tests/cargo.log"

step "clients"
tests/clients/run.py --scratch "$scratch/tests/clients" 2>&1 | tee "$scratch/tests/clients.log"

step "attacks"
{
    "$scratch/tests/clients/venv/bin/python" tests/attack/http2.py --scratch "$scratch/tests/attack"
    tests/attack/slow.sh "$scratch/debug/asr-edge"
} 2>&1 | tee "$scratch/tests/attacks.log"

step "soak"
tests/soak.sh "${SOAK_SECONDS:-20}"

step "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps

step "fuzz"
tests/fuzz.sh "${FUZZ_SECONDS:-10}"

step "done"
# What cargo and the clients reported, added up.
awk '/^test result: ok/ { passed += $4; failed += $6 }
     /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
     END { print passed " passed, " failed + 0 " failed" }' "$scratch/tests/cargo.log" "$scratch/tests/clients.log" \
    "$scratch/tests/attacks.log"
