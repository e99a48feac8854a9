"""The openai Python SDK, and requests: `sdk.py CASE`. Says nothing and exits 0 when the client saw what it should."""

import math
import os
import sys

import openai
import requests

ROOT, KEY, CLIP, BIG, TEXT, SECONDS = (os.environ[name] for name in ("ROOT", "KEY", "CLIP", "BIG", "TEXT", "SECONDS"))
URL = f"{ROOT}/v1/audio/transcriptions"


def client(key=KEY):
    return openai.OpenAI(base_url=f"{ROOT}/v1", api_key=key)


def transcribe(path=CLIP, key=KEY, model="gpt-4o-transcribe", **options):
    with open(path, "rb") as file:
        return client(key).audio.transcriptions.create(model=model, file=file, **options)


def expect(fault, status, call):
    try:
        call()
    except fault as seen:
        assert seen.status_code == status, seen
        return seen
    raise AssertionError(f"no {fault.__name__}")


def json():
    answer = transcribe(language="en", prompt="A pangram.", temperature=0.2)
    assert answer.text == TEXT, answer
    assert answer._request_id.startswith("req_"), answer
    assert (answer.usage.type, answer.usage.seconds) == ("duration", math.ceil(float(SECONDS))), answer


def text():
    assert transcribe(model="whisper-1", response_format="text").removesuffix("\n") == TEXT


def verbose_json():
    answer = transcribe(model="whisper-1", response_format="verbose_json", language="en")
    assert answer.text == TEXT, answer
    assert abs(answer.duration - float(SECONDS)) < 0.01, answer
    assert (answer.usage.type, answer.usage.seconds) == ("duration", math.ceil(float(SECONDS))), answer
    assert answer.language == "english" and not answer.segments, answer


def stream():
    with open(CLIP, "rb") as file:
        events = list(client().audio.transcriptions.create(model="gpt-4o-transcribe", file=file, stream=True))
    assert "".join(event.delta for event in events[:-1]) == TEXT, events
    assert events[-1].type == "transcript.text.done" and events[-1].text == TEXT, events


def file_first():
    with open(CLIP, "rb") as file:
        files = [("file", ("a.wav", file, "audio/wav")), ("model", (None, "whisper-1")), ("language", (None, "en"))]
        answer = requests.post(URL, headers={"Authorization": f"Bearer {KEY}"}, files=files, timeout=30)
    assert answer.status_code == 200 and answer.json()["text"] == TEXT, answer.text


def parts(path):
    """A form in pieces: sent from a generator it has no length."""
    yield b'--edge-of-form\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    yield b'--edge-of-form\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    with open(path, "rb") as file:
        while piece := file.read(10_000):
            yield piece
    yield b"\r\n--edge-of-form--\r\n"


def send_chunked(path, key):
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "multipart/form-data; boundary=edge-of-form"}
    return requests.post(URL, data=parts(path), headers=headers, timeout=60)


def chunked():
    answer = send_chunked(CLIP, KEY)
    assert answer.status_code == 200 and answer.json()["text"] == TEXT, answer.text


def wrong_key():
    fault = expect(openai.AuthenticationError, 401, lambda: transcribe(BIG, key="sk-wrong"))
    assert fault.code == "invalid_api_key" and fault.request_id, fault


def wrong_key_chunked():
    assert send_chunked(BIG, "sk-wrong").status_code == 401


def too_large():
    fault = expect(openai.APIStatusError, 413, lambda: transcribe(BIG))
    assert fault.type == "server_error" and "Maximum content size limit" in fault.message, fault


def too_large_chunked():
    assert send_chunked(BIG, KEY).status_code == 413


def large():
    assert transcribe(BIG).text == TEXT


def subtitles():
    fault = expect(openai.BadRequestError, 400, lambda: transcribe(BIG, model="whisper-1", response_format="srt"))
    assert fault.param == "response_format" and fault.code == "unsupported_value", fault


def after_a_refusal():
    """One client, one pool: what a refusal leaves behind must not spoil the next request."""
    one = client("sk-wrong")
    for path in (CLIP, BIG):
        with open(path, "rb") as file:
            refused = lambda: one.audio.transcriptions.create(model="whisper-1", file=file)  # noqa: E731
            expect(openai.AuthenticationError, 401, refused)
    one.api_key = KEY
    with open(CLIP, "rb") as file:
        assert one.audio.transcriptions.create(model="whisper-1", file=file).text == TEXT


def models():
    names = [model.id for model in client().models.list()]
    assert {"whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"} <= set(names), names
    assert client().models.retrieve("whisper-1").id == "whisper-1"
    expect(openai.NotFoundError, 404, lambda: client().models.retrieve("whisper-9"))


def azure():
    one = openai.AzureOpenAI(azure_endpoint=ROOT, api_key=KEY, api_version="2024-06-01", azure_deployment="whisper-1")
    with open(CLIP, "rb") as file:
        assert one.audio.transcriptions.create(model="whisper-1", file=file).text == TEXT


def translations():
    with open(CLIP, "rb") as file:
        call = lambda: client().audio.translations.create(model="whisper-1", file=file)  # noqa: E731
        expect(openai.BadRequestError, 400, call)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
