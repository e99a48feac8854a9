#!/usr/bin/env bash
# Slow heads, slow bodies and slow readers (slowhttptest), one after the other, while a normal client uploads:
# tests/attack/slow.sh [BINARY]. SLOW_SECONDS (20) is how long each lasts, SLOW_CONNECTIONS (200) how many there are.
#
# The normal client's uploads succeed, the slowest in no more than a second over what it takes without an attack, and
# afterwards every connection of the attack has been closed by the program.
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=${1:-target/debug/asr-edge}
seconds=${SLOW_SECONDS:-20}
connections=${SLOW_CONNECTIONS:-200}
command -v slowhttptest >/dev/null || { echo "slowhttptest is missing: deploy/tools.sh slowhttptest" >&2; exit 1; }

scratch=$(mktemp -d)
pids=()
end() {
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$scratch"
}
trap end EXIT

# start NAME COMMAND...: starts it and leaves its address in $url.
start() {
    local name=$1
    shift
    "$@" >"$scratch/$name.out" 2>"$scratch/$name.log" &
    pids+=($!)
    for _ in $(seq 100); do
        url=$(sed -n 's/^listening on //p' "$scratch/$name.out")
        [[ -n $url ]] && return
        sleep 0.1
    done
    cat "$scratch/$name.log" >&2
    exit 1
}

start stub "$binary" upstream-stub --listen 127.0.0.1:0
cat >"$scratch/edge.toml" <<TOML
[server]
http = ["127.0.0.1:0"]
[codex]
endpoint = "$url/backend-api/transcribe"
bearer = "test-token"
account_id = "test-account"
[limits]
# Short enough to be seen at work.
head_timeout = "4s"
body_timeout = "4s"
idle_timeout = "4s"
# All of them come from one address here, the normal client too.
connections_per_address = 1000
failed_keys_per_minute = 0
# The slow bodies have a key: they would take every place there is.
concurrency = 1000
TOML
start edge env CODEX_ASR_SERVER_KEY=sk-test "$binary" serve --config "$scratch/edge.toml"
edge=${pids[1]}

# One upload; prints how many milliseconds it took, fails unless it was answered 200.
upload() {
    local said
    said=$(curl --silent --noproxy '*' --max-time 20 --output /dev/null --write-out '%{http_code} %{time_total}' \
        -H 'Authorization: Bearer sk-test' -F file=@src/demo/clip.flac "$url/v1/audio/transcriptions") || true
    awk '$1 != 200 { exit 1 } { printf "%d\n", $2 * 1000 }' <<<"$said" || { echo "upload: $said" >&2; return 1; }
}
# Uploads for so many seconds; prints how many there were and how long the slowest took.
uploads() {
    local until=$((SECONDS + $1)) took slowest=0 count=0
    while ((SECONDS < until)); do
        took=$(upload) || return 1
        ((took > slowest)) && slowest=$took
        count=$((count + 1))
        sleep 0.1
    done
    echo "$count $slowest"
}
sockets() {
    # Some are gone while they are looked at.
    { find "/proc/$edge/fd" -lname 'socket:*' 2>/dev/null || true; } | wc -l
}

upload >/dev/null
read -r _ normal <<<"$(uploads 3)"
before=$(sockets)
passed=0 failed=0
# attack NAME ARGUMENTS...: again and again, since it ends as soon as all its connections have been closed.
attack() {
    local name=$1 fault="" result count slowest most=0 held until=$((SECONDS + seconds))
    shift
    while ((SECONDS < until)); do
        slowhttptest -c "$connections" -r "$connections" -l "$seconds" -p 2 "$@" >"$scratch/$name.attack" 2>&1 || true
    done &
    local attacker=$!
    uploads "$seconds" >"$scratch/$name.uploads" &
    local client=$!
    while kill -0 "$client" 2>/dev/null; do
        held=$(($(sockets) - before))
        ((held > most)) && most=$held
        sleep 0.2
    done
    wait "$client" || fault="an upload beside it failed; "
    wait "$attacker" || true
    read -r count slowest <"$scratch/$name.uploads" || true
    ((${slowest:-0} <= normal + 1000)) || fault+="an upload beside it took $slowest ms; "
    ((most > connections / 4)) || fault+="there were no more than $most connections at once; "
    sleep 6
    held=$(($(sockets) - before))
    ((held <= 4)) || fault+="$held connections are left; "
    if [[ -z $fault ]]; then
        passed=$((passed + 1))
        echo "ok   $name: up to $most connections, $count uploads beside it, the slowest took $slowest ms (alone $normal ms)"
    else
        failed=$((failed + 1))
        echo "FAIL $name: ${fault%; }"
        tail -20 "$scratch/$name.attack"
    fi
}

attack head -H -i 2 -t GET -u "$url/v1/models"
attack body -B -i 2 -s 8192 -x 8 -t POST -u "$url/v1/audio/transcriptions" \
    -f $'multipart/form-data; boundary=a-boundary-of-24-letters\r\nAuthorization: Bearer sk-test'
attack read -X -n 2 -w 1 -y 8 -z 8 -k 3 -u "$url/v1/models"
echo "$passed passed, $failed failed"
((failed == 0))
