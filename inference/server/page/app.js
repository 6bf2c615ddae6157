/** The page: what is asked for, the sound that comes, and what can be done with it. */

import { call, ready, Refused, sentence, setKey, voiceNames } from "./api.js";
import { captions } from "./captions.js";
import { curl, python } from "./code.js";
import { AudioPlayer } from "./audio-player.js";
import { EXAMPLES } from "./examples.js";
import { copy } from "./shared/clipboard.js";
import { output, Player, RATE } from "./shared/player.js";
import { ReadAlong } from "./read-along.js";
import { keepFields, recall, remember, themeButton } from "./settings.js";
import { EVENTS, pieces } from "./speech.js";
import { voicesDialog } from "./voices.js";
import { fileName, save, wav } from "./shared/wav.js";

const MOST_CHARACTERS = 100_000;
const CHARACTERS_PER_SECOND = 15; // of English speech
const WIDE = /[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]/gu; // each of these takes as long as four Latin letters
const FINE = ["temperature", "top_p", "repetition_penalty", "seed"];

const $ = (id) => document.getElementById(id);
const audioPlayer = new AudioPlayer({ wave: $("wave"), play: $("play"), clock: $("clock"), what: "the sound" });
const readAlong = new ReadAlong($("read-along"));
let run = null; // the last request and its sound: {body, abort, player, phase: "asking" | "making" | "made"}

function main() {
  keepFields();
  themeButton($("theme"));
  offerExamples();
  const mac = /mac|iphone|ipad/i.test(navigator.platform);
  if (mac) $("shortcut").textContent = "⌘";
  describeText();
  describeSpeed();
  $("text").addEventListener("input", describeText);
  $("speed").addEventListener("input", () => (describeSpeed(), describeText()));
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (busy()) stop();
    else speak();
  });
  $("composer").addEventListener("invalid", (event) => (event.target.closest("details").open = true), true);
  addEventListener("keydown", (event) => {
    if ($("voices").open) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if ($("composer").reportValidity()) speak();
    } else if (event.key === "Escape" && busy()) stop();
  });
  // The browser takes a moment to open its sound device: let it begin with the first touch of anything.
  for (const event of ["pointerdown", "keydown"]) addEventListener(event, () => output().resume(), { once: true });
  audioPlayer.onchange = showButton;
  audioPlayer.onmove = (seconds) => readAlong.move(seconds);
  $("keep-seed").addEventListener("click", () => {
    $("seed").value = run.body.seed;
    remember("seed", $("seed").value);
    $("seed").closest("details").open = true;
    $("status").textContent = `Seed ${run.body.seed} is kept.`;
  });
  $("download").addEventListener("click", download);
  $("captions").addEventListener("click", () => {
    const kind = $("caption-format").value;
    save(new Blob([captions(readAlong.text, readAlong.words, kind)], { type: "text/plain" }), fileName(readAlong.text, kind));
  });
  $("copy-curl").addEventListener("click", () => copyCode(curl, "The curl command"));
  $("copy-python").addEventListener("click", () => copyCode(python, "The Python program"));
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey($("key").value);
    $("key-form").hidden = true;
    showVoices().then(() => $("text").focus());
  });
  voicesDialog(fillVoices);
  modelReady().then(showVoices);
}

/** Wait until the model can speak, saying what is being waited for. */
async function modelReady(signal) {
  const state = await ready(({ status, error }) => {
    $("model").dataset.status = status;
    $("model").textContent = { gone: "The server does not answer", failed: "The model could not be loaded" }[status] ?? "Loading the model";
    if (status === "failed") fail(error);
  }, signal);
  const minnow = state.model === "minnow";
  $("model").dataset.status = "ready";
  $("model").textContent = `${state.model} on ${state.device}`;
  $("pitch-only").hidden = !minnow;
  $("about").hidden = !minnow && !/fish-speech/i.test(state.model);
  $("about").replaceChildren(
    ...(minnow
      ? [strong("This is minnow, the small demo voice in the box:"), " English, a little buzzy; of a voice it follows only the pitch. To hear FishSpeech 1.5, start the server with ", code("FISHSERVE_CHECKPOINT=fishaudio/fish-speech-1.5"), "."]
      : ["The weights of FishSpeech are licensed CC BY-NC-SA 4.0: not for commercial use."]),
  );
}

async function showVoices() {
  try {
    fillVoices(await voiceNames());
  } catch (e) {
    explain(e);
  }
}

function fillVoices(names, chosen = recall("voice") ?? $("voice").value) {
  $("voice").replaceChildren(...names.map((name) => new Option(name)));
  $("voice").value = names.includes(chosen) ? chosen : "default";
  remember("voice", $("voice").value);
  $("voices-open").textContent = names.length > 1 ? "Voices" : "Add a voice";
}

/** What the fields ask for, as the server takes it. */
function asked() {
  const body = { input: $("text").value, voice: $("voice").value };
  if (speed() !== 1) body.speed = speed();
  for (const name of FINE) if ($(name).value !== "") body[name] = Number($(name).value);
  return body;
}

/** As `asked`, with the seed that was drawn if just this has been spoken: so it can be had again exactly as it was heard. */
function askedAgain() {
  const body = asked();
  if (!run) return body;
  const again = { ...body, seed: run.body.seed };
  return JSON.stringify(again) === JSON.stringify({ ...run.body, response_format: undefined, sample_rate: undefined }) ? again : body;
}

const speed = () => Math.round(100 * 2 ** $("speed").value) / 100;
const busy = () => run !== null && (run.phase !== "made" || run.player.playing);

async function speak() {
  stop();
  fail("");
  const body = asked();
  body.seed ??= Math.floor(1e6 * Math.random());
  Object.assign(body, { response_format: "pcm", sample_rate: RATE });
  const mine = { body, abort: new AbortController(), player: new Player(), phase: "asking", asked: performance.now() };
  run = mine;
  const { player } = mine;
  const figures = { firstByte: null, firstSound: null };
  player.onfirst = (at) => {
    figures.firstSound = at - mine.asked;
    if (run === mine) showFigures(mine, figures);
  };
  readAlong.load(body.input);
  audioPlayer.load(player, expectedSeconds());
  showFigures(mine, figures);
  for (const id of ["download", "keep-seed", "captions"]) $(id).disabled = true;
  $("status").textContent = "Waiting for the first sound.";
  player.play();
  let error = null;
  try {
    for await (const { samples, words } of pieces(await answered(mine))) {
      if (words) {
        if (run !== mine) return;
        readAlong.append(words);
        $("captions").disabled = false;
        continue;
      }
      figures.firstByte ??= performance.now() - mine.asked;
      if (mine.phase === "asking") $("status").textContent = "Speaking.";
      mine.phase = "making";
      player.append(samples);
      figures.seconds = (performance.now() - mine.asked) / 1000;
      if (run !== mine) return;
      audioPlayer.append(samples);
      showFigures(mine, figures);
      $("download").disabled = $("keep-seed").disabled = false;
    }
  } catch (e) {
    error = e;
  }
  mine.phase = "made";
  player.finish();
  if (run !== mine) return;
  audioPlayer.finish();
  showFigures(mine, figures);
  showButton();
  const made = `${player.length.toFixed(1)} s of speech`;
  if (!error) $("status").textContent = `Done: ${made}, made in ${(figures.seconds ?? 0).toFixed(1)} s.`;
  else if (error.name === "AbortError") $("status").textContent = player.length ? `Stopped after ${made}.` : "Stopped.";
  else {
    $("status").textContent = player.length ? `The connection was lost after ${made}.` : "Nothing was spoken.";
    explain(error);
  }
}

/** The response to a request. While the model is still loading it waits, and the clock starts when it is there. */
async function answered(mine) {
  const { signal } = mine.abort;
  for (;;) {
    try {
      return await call("v1/audio/speech", { method: "POST", json: { ...mine.body, ...EVENTS }, signal });
    } catch (e) {
      if (e.status !== 503) throw e;
      $("status").textContent = "The model is still loading; this will be spoken as soon as it can.";
      await modelReady(signal);
      mine.asked = performance.now();
      $("status").textContent = "Waiting for the first sound.";
    }
  }
}

/** Silence, and no more work for the server. */
function stop() {
  if (!run) return;
  run.abort.abort();
  run.player.pause();
}

function explain(error) {
  if (!(error instanceof Refused)) {
    fail("The connection was lost. The audio so far is kept.");
  } else if (error.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
    if ($("key").value) fail(error.message);
  } else if (error.status === 429) {
    fail(error.message.includes("try again") ? error.message : `${sentence(error.message)} Try again in ${error.retryAfter ?? 1} s.`);
  } else {
    fail(error.message);
    if (error.status === 0) modelReady().then(() => fail(""));
  }
}

/** Show what went wrong, as a sentence. No words: nothing did. */
function fail(words) {
  $("error").textContent = sentence(words);
}

function showButton() {
  const on = busy();
  $("go").querySelector("span").textContent = on ? "Stop" : "Speak";
  $("go").querySelector("use").setAttribute("href", `page/icons.svg#${on ? "stop" : "play"}`);
}

function showFigures({ body, player }, { firstByte, firstSound, seconds }) {
  const milliseconds = (t) => (t < 1000 ? `${Math.round(t)} ms` : `${(t / 1000).toFixed(2)} s`);
  $("first").textContent = firstSound === null ? "–" : milliseconds(firstSound);
  $("first-byte").textContent = firstByte === null ? "from your click" : `first byte ${milliseconds(firstByte)}`;
  $("factor").textContent = seconds ? `${(player.length / seconds).toFixed(1)}×` : "–";
  $("length").textContent = player.length ? `${player.length.toFixed(1)} s` : "–";
  const breaks = player.underruns;
  $("underruns").textContent = breaks ? `${breaks} ${breaks === 1 ? "break" : "breaks"} while playing` : player.length ? "no breaks" : "";
  $("used-seed").textContent = body.seed;
}

async function download() {
  const { body, player } = run;
  const kind = $("format").value;
  const name = fileName(body.input, kind);
  if (kind === "wav") return save(wav(player.samples(), RATE), name);
  $("download").disabled = true;
  $("status").textContent = `Making ${name} with the same seed.`;
  try {
    const response = await call("v1/audio/speech", { method: "POST", json: { ...body, response_format: kind, sample_rate: undefined, stream: false } });
    save(await response.blob(), name);
    $("status").textContent = `${name} is there.`;
  } catch (e) {
    $("status").textContent = `${name} was not made.`;
    explain(e);
  }
  $("download").disabled = false;
}

async function copyCode(write, what) {
  const copied = await copy(write({ ...askedAgain(), response_format: $("format").value }));
  $("status").textContent = copied ? `${what} is on the clipboard.` : "The browser does not let this page use the clipboard.";
}

function offerExamples() {
  for (const [name, text] of Object.entries(EXAMPLES)) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: name });
    button.addEventListener("click", () => {
      $("text").value = text;
      $("text").dispatchEvent(new Event("input"));
      $("text").focus();
    });
    $("examples").append(button);
  }
  if (recall("text") === null) $("text").value = EXAMPLES["a greeting"];
}

function expectedSeconds() {
  const text = $("text").value;
  return (text.length + 3 * (text.match(WIDE)?.length ?? 0)) / CHARACTERS_PER_SECOND / speed();
}

function describeText() {
  const characters = [...$("text").value].length;
  const seconds = Math.max(1, Math.round(expectedSeconds()));
  const minutes = Math.round(seconds / 60);
  const long = seconds < 100 ? `${seconds} s` : `${minutes} min`;
  const room = characters > MOST_CHARACTERS ? `, ${(characters - MOST_CHARACTERS).toLocaleString("en")} too many` : `, about ${long}`;
  $("count").textContent = `${characters.toLocaleString("en")} characters${characters ? room : ""}`;
  $("count").classList.toggle("over", characters > MOST_CHARACTERS);
}

function describeSpeed() {
  $("speed-shown").textContent = `${speed()}×`;
  $("speed").setAttribute("aria-valuetext", `${speed()} times`);
}

const strong = (text) => Object.assign(document.createElement("strong"), { textContent: text });
const code = (text) => Object.assign(document.createElement("code"), { textContent: text });

main();
