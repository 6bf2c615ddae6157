/** The dialog in which voices are added, renamed and deleted. */

import { call, sentence, voiceNames } from "./api.js";
import { output, Player, RATE } from "./shared/player.js";
import { record, unable } from "./shared/recorder.js";
import { AudioPlayer } from "./audio-player.js";

const SHORTEST = 1; // s
const LONGEST = 90;
const SENTENCE =
  "The boat left the harbour before sunrise, and by the time the fog had lifted we could see the old lighthouse, " +
  "a long grey beach, and somebody waving to us from the shore.";

const $ = (id) => document.getElementById(id);

/** Wire the dialog. `onchange(names, chosen)` is called when the stored voices changed; `chosen` is the one to speak with now. */
export function voicesDialog(onchange) {
  const dialog = $("voices");
  const audioPlayer = new AudioPlayer({ wave: $("clip-wave"), play: $("clip-play"), clock: $("clip-clock"), what: "the clip" });
  let clip = null; // what will be sent: {blob, name}
  let recording = null;
  const lines = new Map(); // of the stored voices, by name

  $("sentence").textContent = SENTENCE;
  $("voices-open").addEventListener("click", async () => {
    dialog.showModal();
    await list();
  });
  $("voices-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    recording?.stop();
    audioPlayer.player?.pause();
  });

  $("record").addEventListener("click", async () => {
    fail("");
    if (recording) return recording.stop();
    const why = unable();
    if (why) return fail(why);
    audioPlayer.player?.pause();
    $("record").disabled = true; // while the browser asks
    try {
      recording = await record(level, LONGEST - 1); // it stops a little late
    } catch (e) {
      return fail(e.message);
    } finally {
      $("record").disabled = false;
    }
    $("level").hidden = false;
    $("clip").hidden = true;
    $("record").querySelector("span").textContent = "Stop recording";
    $("record").classList.add("live");
    const blob = await recording.stopped;
    recording = null;
    $("level").hidden = true;
    $("record").querySelector("span").textContent = "Record again";
    $("record").classList.remove("live");
    if (!$("transcript").value) $("transcript").value = SENTENCE;
    await take(blob, `clip.${blob.type.includes("mp4") ? "m4a" : "webm"}`);
  });

  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (file) take(file, file.name);
  });
  const drop = $("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    dialog.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
    });
  }

  $("add").addEventListener("submit", async (event) => {
    event.preventDefault();
    fail("");
    if (!clip) return fail("Record a clip or choose a file first.");
    const name = $("name").value.trim();
    const form = new FormData();
    form.append("id", name);
    form.append("text", $("transcript").value.trim());
    form.append("audio", clip.blob, clip.name);
    $("save").disabled = true;
    try {
      await call("v1/references/add", { method: "POST", form });
      forget();
      await list(name);
      dialog.close();
    } catch (e) {
      fail(e.message);
    } finally {
      $("save").disabled = false;
    }
  });

  function fail(words) {
    $("add-error").textContent = sentence(words);
  }

  function forget() {
    clip = null;
    $("add").reset();
    $("clip").hidden = true;
    $("clip-status").textContent = "";
    $("record").querySelector("span").textContent = "Record";
  }

  function level(loudness, seconds) {
    $("level").firstElementChild.style.width = `${100 * loudness}%`;
    $("level").setAttribute("aria-valuenow", String(Math.round(100 * loudness)));
    const words = `Recording, ${Math.floor(seconds)} s`;
    if ($("clip-status").textContent !== words) $("clip-status").textContent = words;
  }

  /** Show what was recorded or chosen, and keep it if it can be a voice. */
  async function take(blob, name) {
    fail("");
    clip = null;
    $("clip").hidden = true;
    $("clip-status").textContent = "Reading the clip.";
    let samples = null;
    try {
      samples = mono(await output().decodeAudioData(await blob.arrayBuffer()));
    } catch {
      // The server reads more kinds of file than browsers do.
    }
    const seconds = samples && samples.length / RATE;
    if (seconds !== null && (seconds < SHORTEST || seconds > LONGEST)) {
      $("clip-status").textContent = "";
      return fail(`The clip lasts ${seconds.toFixed(1)} s; a voice needs ${SHORTEST} to ${LONGEST} s.`);
    }
    clip = { blob, name };
    $("clip-status").textContent = samples ? `${name}, ${seconds.toFixed(1)} s` : `${name}: this browser cannot play it, the server may.`;
    $("clip").hidden = !samples;
    if (!samples) return;
    const player = new Player();
    player.append(samples);
    player.finish();
    audioPlayer.load(player);
    audioPlayer.append(samples);
    audioPlayer.finish();
  }

  async function list(chosen) {
    try {
      const names = await voiceNames();
      show(names.filter((name) => name !== "default"));
      $("none-stored").hidden = names.length > 1;
      onchange(names, chosen);
    } catch (e) {
      fail(e.message);
    }
  }

  /** One line for each name. Lines that are there stay: somebody may be writing in one. */
  function show(names) {
    for (const [name, line] of lines) {
      if (names.includes(name)) continue;
      line.remove();
      lines.delete(name);
    }
    names.forEach((name, i) => {
      if (lines.has(name)) return;
      lines.set(name, entry(name));
      $("stored").insertBefore(lines.get(name), $("stored").children[i] ?? null);
    });
  }

  /** A line for one voice, with what can be done to it. Questions are asked in the line itself. */
  function entry(name) {
    const line = document.createElement("li");
    const error = element("p", { className: "error", role: "alert" });

    async function change(path, method, json, chosen) {
      try {
        await call(path, { method, json });
        show([...lines.keys()].filter((other) => other !== name)); // it is another line now, or none
        await list(chosen);
        $("voices-title").focus();
      } catch (e) {
        error.textContent = sentence(e.message);
      }
    }

    function idle(focus) {
      const rename = element("button", { type: "button", textContent: "Rename", ariaLabel: `Rename ${name}`, onclick: renaming });
      const remove = element("button", { type: "button", textContent: "Delete", ariaLabel: `Delete ${name}`, onclick: deleting });
      line.replaceChildren(element("span", { className: "name", textContent: name }), rename, remove, error);
      if (focus) ({ rename, remove })[focus].focus();
    }

    function renaming() {
      const field = element("input", { value: name, required: true, maxLength: 64, pattern: $("name").pattern, title: $("name").title });
      field.ariaLabel = `New name of ${name}`;
      const form = element("form", { className: "row" });
      form.append(field, element("button", { textContent: "Save" }), cancel("rename"));
      form.onsubmit = (event) => {
        event.preventDefault();
        const wanted = field.value.trim();
        const chosen = $("voice").value === name ? wanted : undefined;
        change("v1/references/update", "POST", { old_reference_id: name, new_reference_id: wanted }, chosen);
      };
      line.replaceChildren(form, error);
      field.select();
    }

    function deleting() {
      const yes = element("button", { type: "button", className: "danger", textContent: "Delete" });
      yes.onclick = () => change("v1/references/delete", "DELETE", { reference_id: name });
      line.replaceChildren(element("span", { className: "name", textContent: `Delete ${name} for good?` }), yes, cancel("remove"), error);
      yes.focus();
    }

    function cancel(focus) {
      return element("button", { type: "button", textContent: "Keep it", onclick: () => idle(focus) });
    }

    idle();
    return line;
  }
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

function mono(decoded) {
  const mixed = new Int16Array(decoded.length);
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
  for (let i = 0; i < mixed.length; i++) {
    const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    mixed[i] = 32767 * Math.min(1, Math.max(-1, mean));
  }
  return mixed;
}
