#!/usr/bin/env python3
"""What a flood of wrong keys costs those who have a right one, on this machine.

    tests/bench/flood.py [SECONDS_PER_RUN] [ROUNDS]

Needs a release build and wrk. The program gets one core for itself, and good clients keep it busy: alone, then beside as
many clients with a wrong key. A flood may take its share of the CPU, which is what refusing costs; fair is 1.00, where
good requests keep all the rest. Twice: with a budget of failed keys that is never spent (401), and with the default one
(429 without a look at the key).
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile

from cpu import EDGE, cpu, script, start, wav

FLOOD = """wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer wrong"
wrk.headers["Content-Length"] = "0"
"""


def wrk(url, lua, seconds):
    return subprocess.Popen(
        ["taskset", "-c", "1", "wrk", "-t1", "-c16", f"-d{seconds}s", "--timeout", "30s", "-s", lua, url],
        stdout=subprocess.PIPE, text=True,
    )


def rate(process, seconds):
    return int(re.search(r"(\d+) requests in", process.communicate()[0])[1]) / seconds


def main():
    if os.cpu_count() < 2:
        sys.exit("two cores are needed")
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        good = script(folder, "openai", wav(32 << 10))
        flood = os.path.join(folder, "flood.lua")
        with open(flood, "w") as file:
            file.write(FLOOD)
        stub, upstream = start("taskset", "-c", "1", EDGE, "upstream-stub", "--listen", "127.0.0.1:0", "--no-hash")
        print("answer  good/s alone  beside  refused/s  refused ms CPU  good ms CPU  fairness")
        for answer, budget in (("401", 0), ("429", 10)):
            config = os.path.join(folder, "edge.toml")
            with open(config, "w") as file:
                # Good clients come by another address: the budget is the flood's own.
                file.write(f'[server]\nhttp = ["127.0.0.1:0", "[::1]:0"]\n[limits]\nfailed_keys_per_minute = {budget}\n')
            edge = subprocess.Popen(
                ["taskset", "-c", "0", EDGE, "serve", "--config", config, "--api-key", "k", "--bearer", "t",
                 "--log-level", "warn", "--endpoint", f"{upstream}/backend-api/transcribe"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
            ours, theirs = (edge.stdout.readline().split()[-1] + "/v1/audio/transcriptions" for _ in range(2))
            try:
                rows = []
                for _ in range(rounds):
                    before = cpu(edge.pid)
                    alone = rate(wrk(ours, good, seconds), seconds)
                    good_cost = (cpu(edge.pid) - before) / (alone * seconds)
                    before = cpu(edge.pid)
                    both = wrk(ours, good, seconds), wrk(theirs, flood, seconds)
                    beside, refused = (rate(process, seconds) for process in both)
                    cost = (cpu(edge.pid) - before - beside * seconds * good_cost) / (refused * seconds)
                    left = 1 - refused * cost / (refused * cost + beside * good_cost)
                    rows.append((alone, beside, refused, cost * 1000, good_cost * 1000, beside / (alone * left)))
                a, b, r, c, g, f = (statistics.median(column) for column in zip(*rows))
                print(f"{answer:6} {a:13.0f} {b:7.0f} {r:10.0f} {c:15.3f} {g:12.3f} {f:9.2f}", flush=True)
            finally:
                edge.kill()
        stub.kill()


if __name__ == "__main__":
    main()
