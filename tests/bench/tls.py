#!/usr/bin/env python3
"""CPU per request over TLS 1.3: asr-edge by HTTP/1.1 and by HTTP/2, and nginx merely passing, on this machine.

    tests/bench/tls.py [SECONDS_PER_RUN] [ROUNDS]

Needs a release build, h2load (nghttp2-client), nginx and openssl. All run against the same plain stand-in upstream, 16
connections, in turn; medians. CPU is user + system time of the processes under test, from /proc.
"""
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cpu import EDGE, SIZES, cpu, form, start, wav

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_processes 2;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 16k;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream stub {{ server {upstream}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/c.pem; ssl_certificate_key {folder}/k.pem;
    ssl_protocols TLSv1.3;
    location / {{ proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_request_buffering off; }}
  }}
}}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("nginx does not listen")


def load(url, body, headers, http2, seconds):
    """Requests that were answered with 2xx."""
    command = ["h2load", "-t1", "-c16", "-m1", f"-D{seconds}", "-d", str(body), *([] if http2 else ["--h1"])]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    good = int(re.search(r"status codes: (\d+) 2xx", out)[1])
    bad = [int(count) for count in re.findall(r"(\d+) [345]xx", out)]
    if sum(bad) or not good:
        sys.exit(f"{url}: {out}")
    return good


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", f"{folder}/k.pem", "-out", f"{folder}/c.pem",
        ], check=True, capture_output=True)
        stub, upstream = start(EDGE, "upstream-stub", "--listen", "127.0.0.1:0", "--no-hash")
        Path(folder, "edge.toml").write_text(
            f'[server]\nhttp = []\nhttps = ["127.0.0.1:0"]\n[tls]\ncertificate = "{folder}/c.pem"\nkey = "{folder}/k.pem"\n'
        )
        edge, ours = start(
            EDGE, "serve", "--config", f"{folder}/edge.toml", "--api-key", "k", "--bearer", "t", "--log-level", "warn",
            "--endpoint", f"{upstream}/backend-api/transcribe",
        )
        port = free_port()
        Path(folder, "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream.split("//")[1]))
        nginx = subprocess.Popen(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"])
        wait_for(port)
        ours = f"{ours}/v1/audio/transcriptions"
        theirs = f"https://127.0.0.1:{port}/backend-api/transcribe"
        print("size     nginx ms    h1 ms    h2 ms  h1/nginx  h2/h1")
        try:
            for name, size in SIZES.items():
                audio = wav(size)
                passed, translated = form(folder, "codex", audio), form(folder, "openai", audio)
                runs = {
                    "nginx": (nginx, theirs, passed, False), "h1": (edge, ours, translated, False),
                    "h2": (edge, ours, translated, True),
                }
                cost = {run: [] for run in runs}
                for _ in range(rounds):
                    for run, (process, url, (body, headers), http2) in runs.items():
                        before = cpu_of_all(process.pid)
                        good = load(url, body, headers, http2, seconds)
                        cost[run].append((cpu_of_all(process.pid) - before) / good * 1000)
                n, h1, h2 = (statistics.median(cost[run]) for run in runs)
                print(f"{name:8} {n:8.3f} {h1:8.3f} {h2:8.3f} {h1 / n:9.2f} {h2 / h1:6.2f}", flush=True)
        finally:
            nginx.terminate()
            nginx.wait()
            for process in (edge, stub):
                process.kill()


def cpu_of_all(pid):
    """Of a process and its children: nginx works in those."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu(pid) + sum(cpu(child) for child in children)


if __name__ == "__main__":
    main()
