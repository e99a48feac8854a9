#!/usr/bin/env python3
"""Mixed clients over TLS for a while; see tests/soak.sh."""

import argparse
import http.client
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

KEY = "sk-soak-5d41402abc4b2a76b9719d911017c592"
BOUNDARY = "------------------------soak7f3c9e2b51d8"
# Idle connections that are kept to the upstream at most.
POOL = 128
# What the allocator may still come to hold after the warm-up, which depends on how many clients happened to be in
# flight at once; a leak of a few KiB a request is more.
GROWTH_KIB = 32 * 1024
PATH = "/v1/audio/transcriptions"
SIZES = [200, 3_000, 30_000, 200_000, 1_000_000, 4_000_000]


def wav(length):
    """16 kHz, 16 bits, mono."""
    data = os.urandom(min(length, 4096)) * (length // 4096 + 1)
    head = b"RIFF" + (36 + length).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\1\0\1\0"
    rates = (16_000).to_bytes(4, "little") + (32_000).to_bytes(4, "little")
    return head + rates + b"\2\0\x10\0data" + length.to_bytes(4, "little") + data[:length]


def form(length):
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    return b"".join([
        (part % ("model", "")).encode(), b"whisper-1\r\n",
        (part % ("file", '; filename="a.wav"')).encode(), wav(length), f"\r\n--{BOUNDARY}--\r\n".encode(),
    ])


class Program:
    """A child whose announcements are waited for; it ends with us."""

    def __init__(self, arguments, log):
        self.child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True)
        self.addresses = {}

    def announced(self, *starts):
        found = {}
        while len(found) < len(starts):
            line = self.child.stdout.readline()
            if not line:
                sys.exit(f"{self.child.args[1]} ended: see its log")
            found |= {start: line[len(start):].strip() for start in starts if line.startswith(start)}
        return [found[start] for start in starts]

    def fds(self, port):
        """Open files, and how many of them are connections to that port."""
        files = []
        for file in Path(f"/proc/{self.child.pid}/fd").iterdir():
            try:
                files.append(os.readlink(file))
            except FileNotFoundError:
                pass
        peers = (line.split() for line in Path(f"/proc/{self.child.pid}/net/tcp").read_text().splitlines()[1:])
        there = {f"socket:[{peer[9]}]" for peer in peers if int(peer[2].rsplit(":", 1)[1], 16) == port}
        return len(files), sum(file in there for file in files)

    def rss(self):
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def end(self):
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(60)


class Soak:
    def __init__(self, edge, admin, stub, root, folder, seconds):
        self.host, self.port = edge
        self.admin, self.stub, self.root, self.folder = admin, stub, root, folder
        self.until = time.monotonic() + seconds
        self.lock = threading.Lock()
        self.did = {}
        self.failures = []
        self.context = ssl.create_default_context(cafile=root)
        self.bodies = [form(size) for size in SIZES]

    def count(self, what, failure=None):
        with self.lock:
            self.did[what] = self.did.get(what, 0) + 1
            if failure:
                self.failures.append(f"{what}: {failure}")

    def connect(self):
        return http.client.HTTPSConnection("localhost", self.port, timeout=60, context=self.context)

    def headers(self, key=KEY):
        return {
            "Authorization": f"Bearer {key}",
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        }

    def expect(self, what, wanted, connection, key=KEY, body=None, **more):
        asked = time.monotonic()
        idle = asked - getattr(connection, "answered", asked)
        try:
            connection.request("POST", PATH, body=body or random.choice(self.bodies), headers=self.headers(key), **more)
            answer = connection.getresponse()
            text = answer.read()
            connection.answered = time.monotonic()
            self.count(what, None if answer.status == wanted else f"{answer.status} {text[:200]!r}")
            if answer.headers.get("connection") == "close":
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            now = time.monotonic()
            self.count(what, f"{error!r} {now - asked:.3f} s after it was sent, at {now:.1f} s, idle {idle:.3f} s before")

    # What clients do.

    def fresh(self):
        connection = self.connect()
        self.expect("good, fresh", 200, connection)
        connection.close()

    def kept(self):
        connection = self.connect()
        for _ in range(random.randint(2, 8)):
            self.expect("good, kept", 200, connection)
        connection.close()

    def chunked(self):
        body = random.choice(self.bodies[:4])
        pieces = (body[at:at + 7_001] for at in range(0, len(body), 7_001))
        connection = self.connect()
        self.expect("good, chunked", 200, connection, body=pieces, encode_chunked=True)
        connection.close()

    def http2(self):
        size = random.randrange(len(SIZES))
        command = [
            "curl", "-sS", "--http2", "--cacert", self.root, "-o", "/dev/null", "-w", "%{http_code} %{http_version}",
            "-H", f"Authorization: Bearer {KEY}", "-F", "model=whisper-1",
            "-F", f"file=@{self.folder}/{size}.wav", "--resolve", f"localhost:{self.port}:127.0.0.1",
        ]
        url = f"https://localhost:{self.port}{PATH}"
        ran = subprocess.run([*command, url], capture_output=True, text=True, timeout=90)
        self.count("good, http/2", None if ran.stdout == "200 2" else f"{ran.stdout} {ran.stderr}")

    def wrong_key(self):
        connection = self.connect()
        self.expect("wrong key", 401, connection, key="sk-wrong", body=self.bodies[0])
        connection.close()

    def abort(self):
        """Leaves in the middle, with or without a word."""
        body = random.choice(self.bodies[1:])
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers().items())
        raw = socket.create_connection((self.host, self.port), timeout=60)
        try:
            stream = self.context.wrap_socket(raw, server_hostname="localhost")
            start = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
            stream.sendall(start + body[:random.randrange(len(body) - 100)])
            if random.random() < 0.5:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            stream.close()
            self.count("abort")
        except OSError as error:
            self.count("abort", repr(error))

    def page(self):
        connection = self.connect()
        connection.request("GET", "/v1/models", headers=self.headers())
        answer = connection.getresponse()
        answer.read()
        self.count("models", None if answer.status == 200 else answer.status)
        connection.close()

    def client(self):
        acts = [self.fresh] * 4 + [self.kept] * 4 + [self.chunked, self.http2, self.wrong_key, self.abort, self.page]
        while time.monotonic() < self.until:
            act = random.choice(acts)
            try:
                act()
            except Exception as error:  # Whatever it is, it is a failure of this run.
                self.count(act.__name__, repr(error))

    def run(self, clients):
        threads = [threading.Thread(target=self.client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def ask(self, address, path):
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("GET", path, headers={"Connection": "close"})
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def upstream(self):
        """Requests that the upstream has answered, from its first one on."""
        seen = json.loads(self.ask(self.stub, "/seen"))["requests"]
        wrong = [request["breach"] for request in seen if request["complete"] and request["breach"]]
        self.failures += [f"breach of the contract: {breach}" for breach in wrong]
        # It remembers a bounded number of requests, and numbers them all.
        return len(seen), sum(request["complete"] for request in seen), max((request["id"] for request in seen), default=0)

    def metrics(self):
        """Our own samples, by name and labels."""
        lines = self.ask(self.admin, "/metrics").splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def transcribed(self):
        """Our own count of requests that ended well on the transcription route."""
        metrics = self.metrics().items()
        ended = "asr_edge_requests_total{"
        return sum(int(value) for name, value in metrics
                   if name.startswith(ended) and 'status="200"' in name and "transcri" in name)


def quiet(edge, soak):
    """Waits until nothing is in flight, then for what idles to be closed."""
    for _ in range(300):
        if json.loads(soak.ask(soak.admin, "/status"))["in_flight"] == 0:
            break
        time.sleep(0.1)
    time.sleep(6)
    files, pooled = edge.fds(int(soak.stub.rsplit(":", 1)[1]))
    # Each pooled connection has a task that watches it.
    return files - pooled, pooled, edge.rss(), soak.metrics()["asr_edge_tasks"] - pooled


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--idle-timeout", default="60s")
    arguments = parser.parse_args()
    binary = os.path.abspath(arguments.binary)
    with tempfile.TemporaryDirectory() as folder:
        for number, size in enumerate(SIZES):
            Path(folder, f"{number}.wav").write_bytes(wav(size))
        subprocess.run([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", f"{folder}/k.pem", "-out", f"{folder}/c.pem",
        ], check=True, capture_output=True)
        log = open(f"{folder}/log", "wb")
        script = json.dumps({"delay_ms": 5})
        stub = Program([binary, "upstream-stub", "--listen", "127.0.0.1:0", "--script", script], log)
        [url] = stub.announced("listening on ")
        config = f"""
            [server]
            http = []
            https = ["127.0.0.1:0"]
            admin = "127.0.0.1:0"
            [tls]
            certificate = "{folder}/c.pem"
            key = "{folder}/k.pem"
            [codex]
            endpoint = "{url}/backend-api/transcribe"
            [limits]
            concurrency = 256
            # Longer than any client waits between two requests, however busy the machine.
            idle_timeout = "{arguments.idle_timeout}"
            connections_per_address = 4096
            failed_keys_per_minute = 1000000
            """
        Path(folder, "edge.toml").write_text(config)
        serve = ["serve", "--config", f"{folder}/edge.toml", "--bearer", "t", "--account-id", "a", "--api-key", KEY]
        edge = Program([binary, *serve], log)
        https, admin = edge.announced("listening on https://", "admin on http://")
        host, port = https.rsplit(":", 1)
        try:
            failed = tried(edge, (host, int(port)), admin, url.split("//")[1], f"{folder}/c.pem", folder, arguments)
        finally:
            code = edge.end()
            stub.child.kill()
            stub.child.wait()
        if code:
            failed.append(f"it ended with {code}")
        if failed:
            sys.stderr.write(Path(folder, "log").read_text(errors="replace")[-4000:])
    for failure in failed[:20]:
        print(f"FAILED {failure}")
    print(f"soak: {len(failed)} failed")
    sys.exit(bool(failed))


def tried(edge, address, admin, stub, root, folder, arguments):
    make = lambda seconds: Soak(address, admin, stub, root, folder, seconds)
    # What is allocated once, and stays, is allocated here.
    warm = make(max(arguments.seconds / 3, 10))
    warm.run(arguments.clients)
    before = quiet(edge, warm)
    counted = warm.transcribed(), warm.upstream()
    soak = make(arguments.seconds)
    soak.run(arguments.clients)
    after = quiet(edge, soak)
    failures = warm.failures + soak.failures
    good = sum(count for what, count in soak.did.items() if what.startswith("good"))
    ours = soak.transcribed() - counted[0]
    upstream = soak.upstream()
    numbered = upstream[2] - counted[1][2]
    print(json.dumps({"did": soak.did, "fds": [before[0], after[0]], "pooled": [before[1], after[1]],
                      "rss_kib": [before[2], after[2]], "tasks": [before[3], after[3]],
                      "transcribed": ours, "upstream": {"begun": numbered, "remembered": upstream[0]}}))
    if not good:
        failures.append("no good request at all")
    if ours != good:
        failures.append(f"{good} good requests, but /metrics counts {ours}")
    if upstream[2] == upstream[0] and upstream[1] - counted[1][1] != good:
        failures.append(f"{good} good requests, but the upstream saw {upstream[1] - counted[1][1]} whole ones")
    if not good <= numbered <= good + soak.did.get("abort", 0):
        failures.append(f"{good} good requests, but the upstream began {numbered}")
    if after[0] > before[0]:
        failures.append(f"files: {before[0]}, then {after[0]}")
    if after[1] > POOL:
        failures.append(f"{after[1]} connections are kept to the upstream")
    if after[2] > before[2] + GROWTH_KIB:
        failures.append(f"memory: {before[2]} KiB, then {after[2]} KiB")
    if after[3] > before[3] + 2:
        failures.append(f"tasks: {before[3]}, then {after[3]}")
    return failures


if __name__ == "__main__":
    main()
