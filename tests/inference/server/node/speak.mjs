// Speaks to a server at process.argv[2] as a program with the npm client would, and prints what it heard as JSON.
import OpenAI, { BadRequestError, NotFoundError, RateLimitError } from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "any", maxRetries: 0 });
const ask = (fields) => client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "Hello.", response_format: "pcm", seed: 1, max_new_tokens: 60, ...fields });
const refusal = async (fields) => {
  try {
    await ask(fields);
  } catch (e) {
    const kind = [BadRequestError, NotFoundError, RateLimitError].find((k) => e instanceof k);
    return { kind: kind?.name, status: e.status, message: e.message, param: e.param };
  }
};

const whole = Buffer.from(await (await ask({})).arrayBuffer());
let streamed = Buffer.alloc(0);
let pieces = 0;
for await (const piece of (await ask({})).body) {
  streamed = Buffer.concat([streamed, piece]);
  pieces += 1;
}
console.log(
  JSON.stringify({
    whole: whole.length,
    same: whole.equals(streamed),
    pieces,
    models: (await client.models.list()).data.map((m) => m.id),
    empty: await refusal({ input: "" }),
    stranger: await refusal({ voice: "nobody" }),
  }),
);
