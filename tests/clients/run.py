#!/usr/bin/env python3
"""Drives real clients through a real `asr-edge serve` in front of `asr-edge upstream-stub`.

Each case names the statuses that the proxy must have given and how many whole uploads the upstream must have got:
a client that quietly tries again fails its case even when it is content in the end. Needs what install.sh installed.
"""

import argparse
import hashlib
import subprocess
import sys
import time
import traceback
import wave
from dataclasses import dataclass
from pathlib import Path

import curl
from programs import KEY, TEXT, Edge, Stub, environment

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CASE_TIMEOUT = 90
SETTLED = 0.2


def make_clip(path, seconds):
    """A WAV file of 16 kHz mono 16-bit noise: 32,000 bytes a second."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        pattern = hashlib.shake_256(str(seconds).encode()).digest(32_000)
        file.writeframes(pattern * seconds)
    return path


@dataclass
class Site:
    """A proxy and its upstream, and the files to send."""

    stub: Stub
    edge: Edge
    clip: Path
    big: Path
    scratch: Path
    seconds: float = 2.0

    @property
    def url(self):
        return self.edge.url


@dataclass
class Case:
    name: str
    act: object
    statuses: list
    uploads: int

    def run(self, site):
        """Raises an AssertionError that says what went wrong."""
        before = len(site.edge.lines)
        site.stub.forget()
        self.act(site)
        deadline = time.monotonic() + 10
        while len(site.edge.statuses(before)) < len(self.statuses) and time.monotonic() < deadline:
            time.sleep(0.02)
        # A client that tries again has done so by now: it is gone.
        time.sleep(SETTLED)
        statuses = site.edge.statuses(before)
        assert statuses == self.statuses, f"the proxy answered {statuses}, not {self.statuses}"
        self.judge(site)

    def judge(self, site):
        requests = site.stub.seen()["requests"]
        whole = [request for request in requests if request["complete"]]
        assert len(whole) == self.uploads, f"the upstream got {len(whole)} whole uploads, not {self.uploads}"
        sent = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (site.clip, site.big)}
        for request in whole:
            assert request["breach"] is None, request["breach"]
            file = next(part for part in request["parts"] if part["name"] == "file")
            assert file["sha256"] in sent, "the audio arrived changed"


def python(case):
    return lambda site: run_script(site, [site.scratch / "venv/bin/python", HERE / "sdk.py", case])


def node(case):
    return lambda site: run_script(site, [site.scratch / "node/node", HERE / "sdk.mjs", case])


def run_script(site, command):
    variables = {
        "ROOT": site.url,
        "KEY": KEY,
        "CLIP": str(site.clip),
        "BIG": str(site.big),
        "TEXT": TEXT,
        "SECONDS": str(site.seconds),
        "MODULES": str(site.scratch / "node"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(command, capture_output=True, env=environment(**variables), timeout=CASE_TIMEOUT)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-3000:]


def sdk_cases(language, script):
    """What both SDKs do alike."""
    return [
        Case(f"{language}: {name.replace('_', ' ')}", script(name), statuses, uploads)
        for name, statuses, uploads in [
            ("json", [200], 1),
            ("text", [200], 1),
            ("verbose_json", [200], 1),
            ("stream", [200], 1),
            ("file_first", [200], 1),
            ("chunked", [200], 1),
            ("large", [200], 1),
            ("wrong_key", [401], 0),
            ("wrong_key_chunked", [401], 0),
            ("subtitles", [400], 0),
            ("after_a_refusal", [401, 401, 200], 1),
            ("models", [200, 200, 404], 0),
            ("azure", [200], 1),
            ("translations", [400], 0),
        ]
    ]


def roomy_cases():
    """For a proxy that takes the large file."""
    return [
        Case("curl: json", curl.as_json, [200], 1),
        Case("curl: text", curl.as_text, [200], 1),
        Case("curl: verbose_json", curl.as_verbose_json, [200], 1),
        Case("curl: stream", curl.as_stream, [200], 1),
        Case("curl: file first", curl.file_first, [200], 1),
        Case("curl: chunked", curl.chunked, [200], 1),
        Case("curl: chunked, large", curl.chunked_large, [200], 1),
        Case("curl: waits for 100 Continue", curl.expect_continue, [200], 1),
        Case("curl: wrong key, waiting for 100 Continue", curl.wrong_key_before_continue, [401], 0),
        Case("curl: wrong key", curl.wrong_key, [401], 0),
        Case("curl: no key", curl.no_key, [401], 0),
        Case("curl: HTTP/1.0", curl.http_1_0, [200], 1),
        Case("curl: HTTP/2 with prior knowledge", curl.http_2, [200], 1),
        Case("curl: HTTP/2, wrong key", curl.http_2_wrong_key, [401], 0),
        Case("curl: offers an upgrade to HTTP/2", curl.upgrade_offer, [200], 1),
        Case("curl: from standard input", curl.from_standard_input, [200], 1),
        Case("curl: other paths and key headers", curl.other_doors, [200] * 5, 5),
        Case("curl: Codex's own route", curl.codex_door, [200], 1),
        Case("curl: models", curl.models, [200], 0),
        Case("keep-alive after refusals", curl.keep_alive_after_refusals, [401, 200, 200, 404, 200], 2),
        *sdk_cases("python", python),
        *sdk_cases("node", node),
        Case("node: chunked, file first, large", node("chunked_file_first"), [200], 1),
    ]


def small_cases():
    """For a proxy to which the large file is too large."""
    return [
        Case("curl: too large, waiting for 100 Continue", curl.too_large_before_continue, [413], 0),
        Case("curl: too large", curl.too_large, [413], 0),
        Case("curl: too large, chunked", curl.too_large_chunked, [413], 0),
        Case("curl: too large, HTTP/2", curl.http_2_too_large, [413], 0),
        Case("python: too large", python("too_large"), [413], 0),
        Case("python: too large, chunked", python("too_large_chunked"), [413], 0),
        Case("node: too large", node("too_large"), [413], 0),
        Case("node: too large, chunked", node("too_large_chunked"), [413], 0),
        Case("node: too large, fetch", node("too_large_fetch"), [413], 0),
    ]


def length_bound_cases():
    """For an upstream that speaks HTTP/1.1 and wants to know every length."""
    return [
        Case("curl: chunked", curl.chunked, [200], 1),
        Case("curl: chunked, large", curl.chunked_large, [200], 1),
        Case("python: chunked", python("chunked"), [200], 1),
        Case("node: chunked", node("chunked"), [200], 1),
        Case("node: chunked, file first, large", node("chunked_file_first"), [200], 1),
        Case("node: wrong key, chunked", node("wrong_key_chunked"), [401], 0),
    ]


def open_site(arguments, *, tls, max_upload="50MiB"):
    stub = Stub(arguments.binary, arguments.scratch, tls=tls)
    edge = Edge(arguments.binary, arguments.scratch, stub, max_upload=max_upload)
    clip = make_clip(arguments.scratch / "clip.wav", 2)
    big = make_clip(arguments.scratch / "big.wav", 262)
    return Site(stub, edge, clip, big, arguments.scratch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/debug/asr-edge")
    parser.add_argument("--scratch", type=Path, default=REPOSITORY / "target/tests/clients")
    parser.add_argument("only", nargs="?", default="", help="run the cases whose name contains this")
    arguments = parser.parse_args()
    arguments.scratch = arguments.scratch.resolve()
    for log in ("edge.log", "stub.log"):
        (arguments.scratch / log).write_bytes(b"")

    passed, failed = 0, 0
    for title, cases, options in [
        ("upstream over HTTP/2", roomy_cases(), {"tls": True}),
        ("upstream over HTTP/2, at most 4 MiB", small_cases(), {"tls": True, "max_upload": "4MiB"}),
        ("upstream over HTTP/1.1", length_bound_cases(), {"tls": False}),
    ]:
        cases = [case for case in cases if arguments.only in case.name]
        if not cases:
            continue
        print(title, flush=True)
        site = open_site(arguments, **options)
        for case in cases:
            try:
                case.run(site)
                passed += 1
                print(f"  ok      {case.name}", flush=True)
            except Exception as fault:
                failed += 1
                why = str(fault) if isinstance(fault, AssertionError) else traceback.format_exc()
                print(f"  FAILED  {case.name}\n{why}", flush=True)
        code = site.edge.stop()
        passed, failed = passed + (code == 0), failed + (code != 0)
        print(f"  {'ok    ' if code == 0 else 'FAILED'}  the proxy leaves when told to, with {code}", flush=True)
        site.stub.stop()

    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
