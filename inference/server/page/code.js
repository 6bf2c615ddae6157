/** The same request as a command and as a program. */

import { address, hasKey } from "./api.js";

/** A word that a POSIX shell reads back as exactly this text. */
export const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

export function curl(body) {
  const lines = [`curl ${quoted(address("v1/audio/speech"))}`];
  if (hasKey()) lines.push(`-H "Authorization: Bearer $FISHSERVE_KEY"`);
  lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`, `-o speech.${body.response_format}`);
  return `${lines.join(" \\\n  ")}\n`;
}

/** A program for OpenAI's client. JSON's strings and numbers are Python's, too. */
export function python(body) {
  const { input, voice, response_format, speed, ...own } = body;
  const given = { model: "tts-1", voice, input, response_format, speed };
  const words = Object.entries(given).filter(([, value]) => value !== undefined).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  if (Object.keys(own).length) words.push(`extra_body=${JSON.stringify(own)}`);
  return `${hasKey() ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(address("v1"))}, api_key=${hasKey() ? 'os.environ["FISHSERVE_KEY"]' : '"any"'})
with client.audio.speech.with_streaming_response.create(
    ${words.join(",\n    ")},
) as response:
    response.stream_to_file("speech.${response_format}")
`;
}
