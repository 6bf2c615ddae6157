import { expect, test } from "vitest";

import { Refused, refusal, sentence, words } from "./api";
import { t } from "./strings";

const answer = (status: number, body: string, headers = {}) => new Response(body, { status, headers });

test("the server's words become a sentence", () => {
  expect(sentence("you have 3 credits")).toBe("You have 3 credits.");
  expect(sentence("Wait!")).toBe("Wait!");
});

test("a refusal keeps its words, its code and how long to wait", async () => {
  const body = JSON.stringify({ error: { message: "10 a minute are allowed", code: "rate_limited" } });
  const refused = await refusal(answer(429, body, { "Retry-After": "7" }));
  expect(refused).toMatchObject({ message: "10 a minute are allowed.", status: 429, code: "rate_limited", retryAfter: 7 });
});

test.each(["<html>Bad gateway</html>", "{}", ""])("what a proxy answers, %j, is told by its status", async (body) => {
  expect(await refusal(answer(502, body, { "Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT" }))).toMatchObject({
    message: t.trouble.unknown(502),
    status: 502,
    retryAfter: null,
  });
});

test("what is no refusal is a connection that broke", () => {
  expect(words(new TypeError("network error"))).toBe(t.trouble.brokeOff);
  expect(words(new Refused("No.", 403))).toBe("No.");
});
