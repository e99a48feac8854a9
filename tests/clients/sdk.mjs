// The openai Node SDK, and fetch: `sdk.mjs CASE`. Says nothing and exits 0 when the client saw what it should.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const { ROOT, KEY, CLIP, BIG, TEXT, SECONDS, MODULES } = process.env;
const { OpenAI, AzureOpenAI, toFile } = createRequire(`${MODULES}/`)('openai');
const URL = `${ROOT}/v1/audio/transcriptions`;

const client = (apiKey = KEY) => new OpenAI({ baseURL: `${ROOT}/v1`, apiKey });
const inMemory = (file) => toFile(fs.readFileSync(file), path.basename(file));
const transcribe = async (options = {}, apiKey = KEY) =>
  client(apiKey).audio.transcriptions.create({ model: 'gpt-4o-transcribe', file: await inMemory(CLIP), ...options });

async function expect(fault, status, promise) {
  const seen = await promise.then(() => assert.fail('no error'), (error) => error);
  assert.ok(seen instanceof fault, `${seen}`);
  assert.equal(seen.status, status, `${seen}`);
  return seen;
}

async function events(stream) {
  const all = [];
  for await (const event of stream) all.push(event);
  const done = all.pop();
  assert.equal(all.map((event) => event.delta).join(''), TEXT);
  assert.deepEqual([done.type, done.text], ['transcript.text.done', TEXT]);
}

function form(file) {
  const form = new FormData();
  form.append('file', new File([fs.readFileSync(file)], 'a.wav', { type: 'audio/wav' }));
  form.append('model', 'whisper-1');
  form.append('language', 'en');
  return form;
}

const cases = {
  async json() {
    const answer = await transcribe({ language: 'en', prompt: 'A pangram.', temperature: 0.2 });
    assert.equal(answer.text, TEXT);
    assert.match(answer._request_id, /^req_/);
    assert.deepEqual(answer.usage, { type: 'duration', seconds: Math.ceil(Number(SECONDS)) });
  },
  async text() {
    const answer = await transcribe({ model: 'whisper-1', response_format: 'text' });
    assert.equal(answer.replace(/\n$/, ''), TEXT);
  },
  async verbose_json() {
    const answer = await transcribe({ model: 'whisper-1', response_format: 'verbose_json', language: 'en' });
    assert.equal(answer.text, TEXT);
    assert.equal(answer.language, 'english');
    assert.ok(Math.abs(answer.duration - Number(SECONDS)) < 0.01, `${answer.duration}`);
    assert.deepEqual(answer.usage, { type: 'duration', seconds: Math.ceil(Number(SECONDS)) });
  },
  async stream() {
    await events(await transcribe({ stream: true }));
  },
  async file_first() {
    const headers = { authorization: `Bearer ${KEY}` };
    const answer = await fetch(URL, { method: 'POST', headers, body: form(CLIP) });
    assert.equal(answer.status, 200);
    assert.equal((await answer.json()).text, TEXT);
  },
  async chunked() {
    assert.equal((await transcribe({ file: fs.createReadStream(CLIP) })).text, TEXT);
  },
  async chunked_file_first() {
    const file = fs.createReadStream(BIG);
    const answer = await client().audio.transcriptions.create({ file, model: 'whisper-1', language: 'en' });
    assert.equal(answer.text, TEXT);
  },
  async wrong_key() {
    const fault = await expect(OpenAI.AuthenticationError, 401, transcribe({ file: await inMemory(BIG) }, 'sk-wrong'));
    assert.equal(fault.code, 'invalid_api_key');
  },
  async wrong_key_chunked() {
    await expect(OpenAI.AuthenticationError, 401, transcribe({ file: fs.createReadStream(BIG) }, 'sk-wrong'));
  },
  async too_large() {
    const fault = await expect(OpenAI.APIError, 413, transcribe({ file: await inMemory(BIG) }));
    assert.equal(fault.type, 'server_error');
  },
  async too_large_chunked() {
    await expect(OpenAI.APIError, 413, transcribe({ file: fs.createReadStream(BIG) }));
  },
  async too_large_fetch() {
    const answer = await fetch(URL, { method: 'POST', headers: { authorization: `Bearer ${KEY}` }, body: form(BIG) });
    assert.equal(answer.status, 413);
  },
  async large() {
    assert.equal((await transcribe({ file: await inMemory(BIG) })).text, TEXT);
  },
  async subtitles() {
    const options = { file: await inMemory(BIG), model: 'whisper-1', response_format: 'srt' };
    const fault = await expect(OpenAI.BadRequestError, 400, transcribe(options));
    assert.equal(fault.code, 'unsupported_value');
  },
  async after_a_refusal() {
    const one = client('sk-wrong');
    for (const file of [CLIP, BIG]) {
      const refused = one.audio.transcriptions.create({ model: 'whisper-1', file: await inMemory(file) });
      await expect(OpenAI.AuthenticationError, 401, refused);
    }
    one.apiKey = KEY;
    const answer = await one.audio.transcriptions.create({ model: 'whisper-1', file: await inMemory(CLIP) });
    assert.equal(answer.text, TEXT);
  },
  async models() {
    const names = [];
    for await (const model of client().models.list()) names.push(model.id);
    assert.ok(names.includes('whisper-1') && names.includes('gpt-4o-transcribe'), `${names}`);
    assert.equal((await client().models.retrieve('whisper-1')).id, 'whisper-1');
    await expect(OpenAI.NotFoundError, 404, client().models.retrieve('whisper-9'));
  },
  async azure() {
    const options = { endpoint: ROOT, apiKey: KEY, apiVersion: '2024-06-01', deployment: 'whisper-1' };
    const one = new AzureOpenAI(options);
    const answer = await one.audio.transcriptions.create({ model: 'whisper-1', file: await inMemory(CLIP) });
    assert.equal(answer.text, TEXT);
  },
  async translations() {
    const call = client().audio.translations.create({ model: 'whisper-1', file: await inMemory(CLIP) });
    await expect(OpenAI.BadRequestError, 400, call);
  },
};

await cases[process.argv[2]]();
