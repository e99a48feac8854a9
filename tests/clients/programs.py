"""The two programs under the clients' feet: the proxy, and the stand-in for its upstream."""

import json
import os
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

KEY = "sk-test-right-key"
TEXT = "The quick brown fox jumps over the lazy dog. Zwölf Boxkämpfer jagen Viktor."
START = 20


def environment(**more):
    """Ours, without anything that would send loopback requests elsewhere or that the proxy would read as config."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("CODEX_", "OPENAI_", "AZURE_"))
    }
    return kept | more


class Program:
    """A child that says on its first line where it listens; its standard error is kept line by line."""

    def __init__(self, binary, *arguments, log, **variables):
        self.log = open(log, "ab")
        self.lines = []
        self.process = subprocess.Popen(
            [binary, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**variables),
        )
        threading.Thread(target=self._listen, daemon=True).start()
        line = self._first_line()
        if not line.startswith("listening on "):
            self.stop()
            raise SystemExit(f"{arguments[0]} did not start: {line or ''.join(self.lines)}")
        self.url = line.removeprefix("listening on ").strip()

    def _first_line(self):
        late = threading.Timer(START, self.process.kill)
        late.start()
        line = self.process.stdout.readline().decode()
        late.cancel()
        if not line:
            time.sleep(0.2)
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return line

    def _listen(self):
        for line in self.process.stderr:
            self.log.write(line)
            self.log.flush()
            self.lines.append(line.decode(errors="replace"))

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        """Ends it gently, then not; gives the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Stub(Program):
    """`asr-edge upstream-stub`: over TLS it offers HTTP/2 and so gets bodies without a length."""

    def __init__(self, binary, scratch, *, tls, text=TEXT, more=()):
        self.root = Path(scratch) / "root.pem" if tls else None
        secure = ["--tls", "--root", self.root] if tls else []
        spoken = ["--text", text] if text else []
        super().__init__(
            binary, "upstream-stub", "--listen", "127.0.0.1:0", *secure, *spoken, *more, log=Path(scratch) / "stub.log"
        )

    def _ask(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, body, method=method)
        trust = ssl.create_default_context(cafile=self.root)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def seen(self):
        """What it saw since it was last told to forget."""
        return self._ask("GET", "/seen")

    def forget(self):
        self._ask("DELETE", "/seen")

    def script(self, **script):
        self._ask("POST", "/script", json.dumps(script).encode())


class Edge(Program):
    """`asr-edge serve` in front of a stub."""

    def __init__(self, binary, scratch, stub, *, max_upload="50MiB", concurrency=16, limits=""):
        config = Path(scratch) / f"edge-{id(self):x}.toml"
        root = f'ca_root = "{stub.root}"' if stub.root else ""
        config.write_text(
            f"""
            [server]
            http = ["127.0.0.1:0"]
            [codex]
            endpoint = "{stub.url}/backend-api/transcribe"
            bearer = "test-upstream-token"
            account_id = "test-account"
            {root}
            [limits]
            max_upload = "{max_upload}"
            concurrency = {concurrency}
            spool_dir = "{scratch}"
            {limits}
            [log]
            format = "json"
            """
        )
        super().__init__(
            binary, "serve", "--config", config, log=Path(scratch) / "edge.log", CODEX_ASR_SERVER_KEY=KEY
        )

    def statuses(self, since=0):
        """The statuses of all requests answered, in order, from its access lines."""
        found = []
        for line in self.lines[since:]:
            record = json.loads(line) if line.startswith("{") else {}
            if record.get("target") == "access":
                found.append(record["status"])
        return found
