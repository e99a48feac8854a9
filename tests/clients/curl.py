"""curl, and bare sockets where a case needs to see a connection: functions of a `Site`."""

import http.client
import json
import subprocess
import urllib.parse

from programs import KEY, TEXT, environment

PATH = "/v1/audio/transcriptions"


class Curled:
    """What one run of curl gave."""

    def __init__(self, site, *arguments, key=KEY, path=PATH):
        command = ["curl", "-sS", "-v", "--max-time", "60", "-o", "-", "-w", "\n%{json}"]
        if key:
            command += ["-H", f"Authorization: Bearer {key}"]
        done = subprocess.run(
            [*command, *map(str, arguments), site.url + path], capture_output=True, env=environment(), timeout=90
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
        body, _, facts = done.stdout.decode().rpartition("\n")
        self.body, self.facts, self.talk = body, json.loads(facts), done.stderr.decode(errors="replace")
        self.status = self.facts["http_code"]

    def text(self):
        """The transcript of a JSON answer."""
        assert self.status == 200, self.body
        return json.loads(self.body)["text"]


def form(site, *options, clip=None, model="whisper-1"):
    """The arguments of an upload, as the API's documentation has them."""
    return [*options, "-F", f"model={model}", "-F", f"file=@{clip or site.clip}"]


def as_json(site):
    assert Curled(site, *form(site)).text() == TEXT


def as_text(site):
    answer = Curled(site, *form(site, "-F", "response_format=text"))
    assert answer.body.rstrip("\n") == TEXT, answer.body


def as_verbose_json(site):
    answer = json.loads(Curled(site, *form(site, "-F", "response_format=verbose_json")).body)
    assert answer["text"] == TEXT and abs(answer["duration"] - site.seconds) < 0.01, answer
    assert isinstance(answer["language"], str) and answer["segments"] == [], answer


def as_stream(site):
    answer = Curled(site, *form(site, "-N", "-F", "stream=true", model="gpt-4o-transcribe"))
    blocks = answer.body.removesuffix("\n").split("\n\n")
    events = [json.loads(block.removeprefix("data: ")) for block in blocks if block.strip()]
    assert "".join(event["delta"] for event in events[:-1]) == TEXT, events
    assert events[-1] == {"type": "transcript.text.done", "text": TEXT}, events


def file_first(site):
    assert Curled(site, "-F", f"file=@{site.clip};type=audio/wav", "-F", "model=whisper-1").text() == TEXT


def chunked(site):
    assert Curled(site, *form(site, "-H", "Transfer-Encoding: chunked")).text() == TEXT


def chunked_large(site):
    assert Curled(site, *form(site, "-H", "Transfer-Encoding: chunked", clip=site.big)).text() == TEXT


def expect_continue(site):
    """curl asks before it sends more than 1 MiB, and would wait a second for nothing."""
    answer = Curled(site, *form(site, clip=site.big))
    assert answer.text() == TEXT
    assert "< HTTP/1.1 100 Continue" in answer.talk, answer.talk
    assert "Done waiting for 100-continue" not in answer.talk, answer.talk


def wrong_key_before_continue(site):
    answer = Curled(site, *form(site, clip=site.big), key="sk-wrong")
    assert answer.status == 401 and answer.facts["size_upload"] == 0, answer.facts


def wrong_key(site):
    assert Curled(site, *form(site, "-H", "Expect:", clip=site.big), key="sk-wrong").status == 401


def no_key(site):
    answer = Curled(site, *form(site, "-H", "Expect:", clip=site.big), key=None)
    assert answer.status == 401 and "www-authenticate: bearer" in answer.talk.lower(), answer.talk


def too_large_before_continue(site):
    answer = Curled(site, *form(site, clip=site.big))
    assert answer.status == 413 and answer.facts["size_upload"] == 0, answer.facts


def too_large(site):
    assert Curled(site, *form(site, "-H", "Expect:", clip=site.big)).status == 413


def too_large_chunked(site):
    options = ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]
    assert Curled(site, *form(site, *options, clip=site.big)).status == 413


def http_1_0(site):
    answer = Curled(site, *form(site, "--http1.0"))
    assert answer.text() == TEXT
    assert "transfer-encoding" not in answer.talk.lower(), answer.talk


def http_2(site):
    answer = Curled(site, *form(site, "--http2-prior-knowledge", clip=site.big))
    assert answer.text() == TEXT and answer.facts["http_version"] == "2", answer.facts


def http_2_wrong_key(site):
    answer = Curled(site, *form(site, "--http2-prior-knowledge", clip=site.big), key="sk-wrong")
    assert answer.status == 401, answer.facts


def http_2_too_large(site):
    assert Curled(site, *form(site, "--http2-prior-knowledge", clip=site.big)).status == 413


def upgrade_offer(site):
    answer = Curled(site, *form(site, "--http2"))
    assert answer.text() == TEXT and answer.facts["http_version"] == "1.1", answer.facts


def from_standard_input(site):
    with open(site.clip, "rb") as clip:
        done = subprocess.run(
            ["curl", "-sS", "-H", f"Authorization: Bearer {KEY}", "-F", "model=whisper-1"]
            + ["-F", "file=@-;filename=a.wav", site.url + PATH],
            stdin=clip,
            capture_output=True,
            env=environment(),
            timeout=60,
        )
    assert json.loads(done.stdout)["text"] == TEXT, done


def other_doors(site):
    for path in ("/audio/transcriptions", "/openai/v1/audio/transcriptions", "//v1/audio/transcriptions/"):
        assert Curled(site, *form(site), path=path).text() == TEXT, path
    for header in (f"X-API-Key: {KEY}", f"api-key: {KEY}"):
        assert Curled(site, *form(site, "-H", header), key=None).text() == TEXT, header


def codex_door(site):
    answer = Curled(site, "-F", f"file=@{site.clip}", path="/backend-api/transcribe")
    assert answer.text() == TEXT


def models(site):
    listed = json.loads(Curled(site, path="/v1/models").body)
    assert listed["object"] == "list" and any(model["id"] == "whisper-1" for model in listed["data"]), listed


def keep_alive_after_refusals(site):
    """Refusals whose body was read, or that had none, leave the connection open and in step."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(site.url).netloc, timeout=30)

    def ask(method, path, key, body=None, headers=()):
        connection.request(method, path, body, {"Authorization": f"Bearer {key}", **dict(headers)})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def upload(response_format):
        fields = {"model": "whisper-1", "response_format": response_format}
        head = "".join(
            f'--form-of-mine\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        file = '--form-of-mine\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = (head + file).encode() + site.clip.read_bytes() + b"\r\n--form-of-mine--\r\n"
        return ask("POST", PATH, KEY, body, [("Content-Type", "multipart/form-data; boundary=form-of-mine")])

    assert ask("GET", "/v1/models", "sk-wrong")[0] == 401
    socket = connection.sock
    assert socket is not None, "closed after a 401 to a request without a body"
    assert ask("GET", "/v1/models", KEY)[0] == 200
    assert connection.sock is socket, "a new connection"
    assert upload("json")[0] == 200
    assert ask("GET", "/v1/nothing", KEY)[0] == 404
    assert upload("text") == (200, TEXT.encode() + b"\n")
    assert connection.sock is socket, "a new connection"
