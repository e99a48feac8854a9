#!/usr/bin/env bash
# Mixed clients over TLS for a while: `tests/soak.sh [SECONDS] [CLIENTS]` (60, 200). Fails unless every good request has
# succeeded, files and memory have stayed flat, and our counts agree with what the upstream saw. SOAK_BINARY is what is
# tried; without it the program is built. Needs python3, curl and openssl.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${SOAK_BINARY:-}
if [ -z "$binary" ]; then
    cargo build --quiet --locked
    binary=${CARGO_TARGET_DIR:-target}/debug/asr-edge
fi
exec python3 tests/soak/run.py --binary "$binary" --seconds "${1:-60}" --clients "${2:-200}"
