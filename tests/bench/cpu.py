#!/usr/bin/env python3
"""CPU per request and requests per second: asr-edge translating against bare Pingora passing, on this machine.

    tests/bench/cpu.py [SECONDS_PER_RUN] [ROUNDS]

Needs a release build of the binaries and examples, and wrk. Both run against the same stand-in upstream, 16
connections, in turn; medians. CPU is user + system time of the process under test, from /proc.
"""
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
EDGE = os.path.join(TARGET, "release/asr-edge")
PASS = os.path.join(TARGET, "release/examples/passthrough")
SIZES = {"32 KiB": 32 << 10, "1 MiB": 1 << 20, "25 MiB": 25 << 20}
TICK = os.sysconf("SC_CLK_TCK")


def start(*command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, process.stdout.readline().split()[-1]


def wav(size):
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16) + b"data" + struct.pack("<I", size)
    return head + os.urandom(size)


HEADS = {
    "openai": (
        '--BOUNDARY\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        '--BOUNDARY\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n',
        {"Authorization": "Bearer k"},
    ),
    # What the upstream takes as it is: who only passes translates nothing.
    "codex": (
        '--BOUNDARY\r\nContent-Disposition: form-data; name="file"; filename="audio.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n",
        {"Authorization": "Bearer t", "originator": "o", "User-Agent": "u", "Accept-Encoding": "identity"},
    ),
}


def form(folder, kind, audio):
    """A file with a form that ends with `audio`, and the headers to send with it."""
    boundary = "b" * 32
    head, headers = HEADS[kind]
    path = os.path.join(folder, f"{kind}.body")
    with open(path, "wb") as file:
        file.write(head.replace("BOUNDARY", boundary).encode() + audio + f"\r\n--{boundary}--\r\n".encode())
    return path, {**headers, "Content-Type": f"multipart/form-data; boundary={boundary}"}


def script(folder, kind, audio):
    """A wrk script that posts such a form."""
    path, headers = form(folder, kind, audio)
    with open(f"{path}.lua", "w") as file:
        file.write(f'local file = io.open("{path}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n')
        file.write('wrk.method = "POST"\n')
        file.writelines(f'wrk.headers["{key}"] = "{value}"\n' for key, value in headers.items())
    return f"{path}.lua"


def cpu(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure(process, url, lua, seconds):
    before = cpu(process.pid)
    out = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "--timeout", "30s", "-s", lua, url], capture_output=True, text=True, check=True
    ).stdout
    done = int(re.search(r"(\d+) requests in", out)[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if bad:
        sys.exit(f"{bad[0]} at {url}")
    return (cpu(process.pid) - before) / done * 1000, done / seconds


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    stub, upstream = start(EDGE, "upstream-stub", "--listen", "127.0.0.1:0", "--no-hash")
    floor, floor_url = start(PASS, "127.0.0.1:0", upstream.split("//")[1])
    edge, edge_url = start(
        EDGE, "serve", "--port", "0", "--api-key", "k", "--bearer", "t", "--log-level", "warn",
        "--endpoint", f"{upstream}/backend-api/transcribe",
    )
    print("size      floor ms  ours ms  ratio   floor/s   ours/s  ratio")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, size in SIZES.items():
                audio = wav(size)
                passed, translated = script(folder, "codex", audio), script(folder, "openai", audio)
                runs = {"floor": [], "ours": []}
                for _ in range(rounds):
                    runs["floor"].append(measure(floor, f"{floor_url}/backend-api/transcribe", passed, seconds))
                    runs["ours"].append(measure(edge, f"{edge_url}/v1/audio/transcriptions", translated, seconds))
                (fc, fr), (oc, orr) = ([statistics.median(column) for column in zip(*runs[k])] for k in ("floor", "ours"))
                print(f"{name:8} {fc:9.3f} {oc:8.3f} {oc / fc:6.2f} {fr:9.0f} {orr:8.0f} {orr / fr:6.2f}", flush=True)
    finally:
        for process in (edge, floor, stub):
            process.kill()


if __name__ == "__main__":
    main()
