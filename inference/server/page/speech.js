/** Speech as server-sent events bring it: sound, and when each word is heard. */

import { Refused } from "./api.js";

/** What a request for speech says besides, so that its response has these events. */
export const EVENTS = { stream_format: "sse", word_timestamps: true };

/** Pieces as they arrive: {samples} of 16 bits, or {words}. Throws Refused when the server says what went wrong. */
export async function* pieces(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const { type, audio, words, error } = JSON.parse(event.slice("data: ".length));
        if (type === "speech.audio.delta") yield { samples: samples(audio) };
        else if (type === "speech.audio.words") yield { words };
        else if (type === "speech.audio.error") throw new Refused(error.message, 500);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function samples(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}
