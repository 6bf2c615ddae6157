// The npm clients: openai, @elevenlabs/elevenlabs-js, fish-audio, fish-audio-sdk, ai with @ai-sdk/openai and @ai-sdk/elevenlabs.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";

const [url, folder] = process.argv.slice(2);
const packages = `${process.cwd()}/node_modules`;
const load = (name) => import(name);
const versionOf = (name) => JSON.parse(readFileSync(`${packages}/${name}/package.json`)).version;
const SENTENCE = "The weather is cold and the wind is strong today.";
const LATER = "We will walk to the station in the morning.";

const call = async (client, what, work) => {
  const began = performance.now();
  const line = { client: `${client} (npm)`, version: versionOf(client), call: what };
  const made = {
    first: () => (line.first_audio_ms ??= Math.round(performance.now() - began)),
    file: (content, ending, says = SENTENCE) => {
      made.first();
      const path = `${folder}/${readdirSync(folder).length}.${ending}`;
      writeFileSync(path, content);
      (line.sounds ??= []).push({ path, says });
    },
    note: (words) => (line.note = words),
  };
  try {
    await work(made);
  } catch (e) {
    console.error(e);
    line.error = `${e.name}: ${e.message}`.split("\n")[0].slice(0, 300);
  }
  console.log(JSON.stringify(line));
};
const all = async (stream, made) => {
  const pieces = [];
  for await (const piece of stream) {
    made.first();
    pieces.push(Buffer.from(piece));
  }
  return Buffer.concat(pieces);
};
const words = async function* () {
  for (const word of `${SENTENCE} ${LATER}`.split(" ")) yield `${word} `;
};

await call("openai", "audio.speech.create, mp3", async (made) => {
  const { default: OpenAI } = await load("openai");
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
  made.file(Buffer.from(await (await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: SENTENCE })).arrayBuffer()), "mp3");
});
await call("openai", "audio.speech.create, wav, streamed", async (made) => {
  const { default: OpenAI } = await load("openai");
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
  const reply = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: SENTENCE, response_format: "wav" });
  made.file(await all(reply.body, made), "wav");
});
await call("@elevenlabs/elevenlabs-js", "textToSpeech.convert, .stream, voices, models", async (made) => {
  const { ElevenLabsClient } = await load("@elevenlabs/elevenlabs-js");
  const client = new ElevenLabsClient({ baseUrl: url, apiKey: "any" });
  made.file(await all(await client.textToSpeech.convert("default", { text: SENTENCE }), made), "mp3");
  made.file(await all(await client.textToSpeech.stream("default", { text: SENTENCE, outputFormat: "opus_48000_64" }), made), "ogg");
  const { voices } = await client.voices.getAll();
  made.note(`${voices.length} voices, model ${(await client.models.list())[0].modelId}`);
});
await call("fish-audio", "textToSpeech.convert", async (made) => {
  const { FishAudioClient } = await load("fish-audio");
  const client = new FishAudioClient({ apiKey: "any", baseUrl: url });
  made.file(await all(await client.textToSpeech.convert({ text: SENTENCE }), made), "mp3");
});
await call("fish-audio", "textToSpeech.convertRealtime", async (made) => {
  const { FishAudioClient, RealtimeEvents } = await load("fish-audio");
  const client = new FishAudioClient({ apiKey: "any", baseUrl: url });
  const connection = await client.textToSpeech.convertRealtime({ text: "", format: "wav" }, words());
  const pieces = [];
  await new Promise((resolve, reject) => {
    connection.on(RealtimeEvents.AUDIO_CHUNK, (piece) => {
      made.first();
      pieces.push(Buffer.from(piece));
    });
    connection.on(RealtimeEvents.ERROR, reject);
    connection.on(RealtimeEvents.CLOSE, resolve);
  });
  connection.close(); // it stays open for the next text, and keeps the program running
  made.file(Buffer.concat(pieces), "wav", `${SENTENCE} ${LATER}`);
});
await call("fish-audio-sdk", "Session.tts", async (made) => {
  const { Session, TTSRequest } = await load("fish-audio-sdk");
  const session = new Session("any", url);
  made.file(await all(session.tts(new TTSRequest(SENTENCE), { model: "speech-1.5" }), made), "mp3");
  session.close();
});
await call("@ai-sdk/openai", "generateSpeech, mp3 and wav", async (made) => {
  const { experimental_generateSpeech, generateSpeech = experimental_generateSpeech } = await load("ai");
  const { createOpenAI } = await load("@ai-sdk/openai");
  const model = createOpenAI({ baseURL: `${url}/v1`, apiKey: "any" }).speech("tts-1");
  for (const outputFormat of ["mp3", "wav"]) {
    const { audio } = await generateSpeech({ model, text: SENTENCE, voice: "alloy", outputFormat, maxRetries: 0 });
    made.file(audio.uint8Array, outputFormat);
  }
});
await call("@ai-sdk/elevenlabs", "generateSpeech", async (made) => {
  const { experimental_generateSpeech, generateSpeech = experimental_generateSpeech } = await load("ai");
  const { createElevenLabs } = await load("@ai-sdk/elevenlabs");
  // It has no setting for the address, so its requests are sent on.
  const send = (asked, options) => fetch(String(asked).replace("https://api.elevenlabs.io", url), options);
  const model = createElevenLabs({ apiKey: "any", fetch: send }).speech("eleven_flash_v2_5");
  const { audio } = await generateSpeech({ model, text: SENTENCE, voice: "default", maxRetries: 0 });
  made.file(audio.uint8Array, "mp3");
});
