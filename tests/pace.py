#!/usr/bin/env python3
"""Two figures: how soon a paced upload is passed on, and how much memory many of them take.

Delay: over a warm upstream connection, an upload with the file part first is sent at a steady pace. The sender's clock
just before it hands the first file byte (and the last bytes of the form) to the system is compared with the upstream's
when it reads them; both run on this machine. The scheduling of three processes is part of the figure.

Memory: many such uploads at once against an upstream that reads more slowly than they come. Peak resident memory of
the proxy, sampled and as the kernel remembers it, less what it had when idle.

    cargo build --release --locked && tests/pace.py              as the goals have it: about five minutes an upstream
    tests/pace.py --short                                        the same with less, in half a minute
"""

import argparse
import json
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests/clients"))

from programs import KEY, Edge, Stub  # noqa: E402

MIB = 1 << 20
PIECE = 16 << 10
DELAY_GOAL_MS = 1.0
MEMORY_GOAL_MIB = 64


def wav(size):
    """Noise with a header before it, `size` bytes in all."""
    data = size - 44
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size - 8, b"WAVE", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16, b"data", data)
    noise = bytes((i * 2654435761 >> 13) & 0xFF for i in range(65_521))
    return head + (noise * (data // len(noise) + 1))[:data]


class Upload:
    """One upload, file part first; `sent` and `ended` are the sender's clock at its two ends, in Unix nanoseconds."""

    OPENING = b'--a-boundary-of-24-letters\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    CLOSING = (
        b'\r\n--a-boundary-of-24-letters\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        b"--a-boundary-of-24-letters--\r\n"
    )

    def __init__(self, edge, audio, rate):
        """`rate` is in bytes a second; None sends as fast as it goes."""
        where = urllib.parse.urlsplit(edge.url)
        with socket.create_connection((where.hostname, where.port)) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.settimeout(600)
            length = len(self.OPENING) + len(audio) + len(self.CLOSING)
            line.sendall(
                f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {KEY}\r\n"
                "Content-Type: multipart/form-data; boundary=a-boundary-of-24-letters\r\n"
                f"Content-Length: {length}\r\nConnection: close\r\n\r\n".encode()
            )
            time.sleep(0.05)
            start = time.monotonic()
            self.sent = time.time_ns()
            line.sendall(self.OPENING + audio[:PIECE])
            for at in range(PIECE, len(audio), PIECE):
                if rate:
                    time.sleep(max(0.0, start + at / rate - time.monotonic()))
                line.sendall(audio[at : at + PIECE])
            if rate:
                time.sleep(max(0.0, start + len(audio) / rate - time.monotonic()))
            self.ended = time.time_ns()
            line.sendall(self.CLOSING)
            answer = b""
            while received := line.recv(65536):
                answer += received
            self.took = (time.time_ns() - self.ended) / 1e6
        head, _, body = answer.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])
        if self.status != 200:
            time.sleep(0.2)
            raise SystemExit(f"answered {self.status}: {body.decode(errors='replace')}\n{''.join(edge.lines[-5:])}")
        json.loads(body)["text"]


def delay(options, scratch, tls):
    stub = Stub(options.binary, scratch, tls=tls, more=["--no-hash"])
    edge = Edge(options.binary, scratch, stub)
    audio = wav(int(options.mib * MIB))
    Upload(edge, wav(64 << 10), None)
    connections = stub.seen()["connections"]
    first, last, answered = [], [], []
    for _ in range(options.requests):
        stub.forget()
        upload = Upload(edge, audio, options.rate_mib * MIB)
        (request,) = [request for request in stub.seen()["requests"] if request["method"] == "POST"]
        if not request["complete"] or request["breach"] or request["parts"][0]["bytes"] != len(audio):
            raise SystemExit(f"the upstream did not get what was sent: {request}")
        if request["connection"] > connections:
            raise SystemExit("the upstream connection was not a warm one")
        first.append((request["first_file_byte_unix_ns"] - upload.sent) / 1e6)
        last.append((request["last_byte_unix_ns"] - upload.ended) / 1e6)
        answered.append(upload.took)
    edge.stop()
    stub.stop()
    print(f"  {options.requests} uploads of {options.mib:g} MiB at {options.rate_mib:g} MiB/s, file part first, warm connection")
    met = True
    for what, times in (("first file byte", first), ("last byte", last), ("answer after last byte", answered)):
        middle = statistics.median(times)
        verdict = ""
        if times is not answered:
            met &= middle < DELAY_GOAL_MS
            verdict = f"  goal < {DELAY_GOAL_MS:g} ms: {'met' if middle < DELAY_GOAL_MS else 'MISSED'}"
        print(f"    {what:24} median {middle:.3f} ms  (from {min(times):.3f} to {max(times):.3f}){verdict}")
    return met


def resident(edge, field):
    """A line of /proc/PID/status, in MiB."""
    for line in Path(f"/proc/{edge.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {field}")


def memory(options, scratch, tls):
    slow = json.dumps({"slow_read": int(options.read_kib * 1024)})
    stub = Stub(options.binary, scratch, tls=tls, more=["--no-hash", "--script", slow])
    edge = Edge(options.binary, scratch, stub, concurrency=options.uploads)
    audio = wav(int(options.mib * MIB))
    for _ in range(3):
        Upload(edge, wav(64 << 10), None)
    time.sleep(1)
    idle = resident(edge, "VmRSS")
    # Forget the peak so far.
    Path(f"/proc/{edge.pid}/clear_refs").write_text("5")
    stub.forget()

    faults = []

    def send():
        try:
            Upload(edge, audio, options.rate_mib * MIB)
        except (SystemExit, OSError, ValueError) as fault:
            faults.append(fault)

    threads = [threading.Thread(target=send) for _ in range(options.uploads)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    sampled = 0.0
    while any(thread.is_alive() for thread in threads):
        sampled = max(sampled, resident(edge, "VmRSS"))
        time.sleep(0.05)
    took = time.monotonic() - began
    requests = stub.seen()["requests"]
    flying = len({request["connection"] for request in requests})
    if faults:
        raise SystemExit(f"{len(faults)} of {options.uploads} failed: {faults[0]}")
    whole = [r for r in requests if r["complete"] and not r["breach"] and r["parts"][0]["bytes"] == len(audio)]
    if len(whole) != options.uploads:
        raise SystemExit(f"the upstream got {len(whole)} of {options.uploads}")
    peak = max(sampled, resident(edge, "VmHWM"))
    edge.stop()
    stub.stop()
    met = peak - idle < MEMORY_GOAL_MIB
    print(
        f"  {options.uploads} uploads of {options.mib:g} MiB at once at {options.rate_mib:g} MiB/s, read upstream at "
        f"{options.read_kib:g} KiB/s each, over {flying} connections, in {took:.0f} s\n"
        f"    idle {idle:.1f} MiB, peak {peak:.1f} MiB (sampled {sampled:.1f}), over idle {peak - idle:.1f} MiB"
        f"  goal < {MEMORY_GOAL_MIB} MiB: {'met' if met else 'MISSED'}"
    )
    return met


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/asr-edge")
    parser.add_argument("--mib", type=float, default=25, help="size of an upload")
    parser.add_argument("--rate-mib", type=float, default=1, help="pace of an upload, MiB/s")
    parser.add_argument("--requests", type=int, default=7, help="uploads measured for delay")
    parser.add_argument("--uploads", type=int, default=64, help="uploads at once for memory")
    parser.add_argument("--read-kib", type=float, default=512, help="pace of the slow upstream, KiB/s")
    parser.add_argument("--upstream", choices=["h1", "h2", "both"], default="both", help="plain HTTP/1.1, or HTTP/2 over TLS")
    parser.add_argument("--only", choices=["delay", "memory"])
    parser.add_argument("--short", action="store_true", help="2 MiB, 3 requests, 16 uploads")
    options = parser.parse_args()
    if options.short:
        options.mib, options.requests, options.uploads = 2, 3, 16
    met = True
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for name, tls in (("h1", False), ("h2", True)):
            if options.upstream not in (name, "both"):
                continue
            print(f"upstream over {'HTTP/2, TLS' if tls else 'HTTP/1.1, plain'}", flush=True)
            for figure in (delay, memory):
                if options.only in (None, figure.__name__):
                    met &= figure(options, scratch, tls)
                    sys.stdout.flush()
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
