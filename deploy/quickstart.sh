#!/usr/bin/env bash
# Builds asr-edge and shows it at work: a stand-in upstream, a fresh key, a bundled clip, one real request.
# Needs a Rust toolchain; installs the other build tools. No login, and no network beyond what building needs.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
if ! command -v cargo >/dev/null; then
    echo "There is no cargo: install Rust from https://rustup.rs first." >&2
    exit 1
fi
deploy/tools.sh cmake make cc
cargo build --release --locked
"${CARGO_TARGET_DIR:-target}/release/asr-edge" demo --once
