#!/usr/bin/env bash
# Installs the Debian packages of those of the named tools that are missing: deploy/tools.sh cmake cc make
set -euo pipefail

has() {
    case "$1" in
        python3-venv) python3 -c 'import ensurepip, venv' ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

packages() {
    case "$1" in
        cc) echo gcc libc6-dev ;;
        c++) echo g++ ;;
        testssl) echo testssl.sh ;;
        tinyproxy) echo tinyproxy-bin ;;
        *) echo "$1" ;;
    esac
}

missing=()
for tool in "$@"; do
    has "$tool" || read -ra missing <<<"${missing[*]} $(packages "$tool")"
done
if ((${#missing[@]} == 0)); then
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "Install these first, by the names your system has for them: ${missing[*]}" >&2
    exit 1
fi
root=()
if (($(id -u) != 0)); then
    # Without a terminal nobody can type a password.
    command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; } || {
        echo "Install these as root first: apt-get install ${missing[*]}" >&2
        exit 1
    }
    root=(sudo)
fi
echo "installing ${missing[*]}"
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
