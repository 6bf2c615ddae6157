import { expect, test } from "vitest";

import { brief, clock, duration, moment, money } from "./format";

test.each([
  [0.84, "0.8 s"],
  [9.94, "9.9 s"],
  [9.96, "10 s"],
  [59.4, "59 s"],
  [60, "1 min"],
  [200, "3 min 20 s"],
  [3600, "1 h"],
  [7500, "2 h 5 min"],
])("%f seconds are read as %s", (seconds, words) => expect(duration(seconds)).toBe(words));

test("the clock carries tenths into minutes", () => {
  expect(clock(59.96)).toBe("1:00.0");
  expect(clock(62.53)).toBe("1:02.5");
});

test("today is a time, this year a day, another year has its number", () => {
  const now = new Date(2026, 10, 25, 12);
  expect(moment(new Date(2026, 10, 25, 9, 5).toISOString(), now)).toMatch(/09:05/);
  expect(moment(new Date(2026, 10, 3).toISOString(), now)).toMatch(/^(?=.*3)(?=.*Nov)(?!.*2026)/);
  expect(moment(new Date(2025, 10, 3).toISOString(), now)).toContain("2025");
});

test.each([
  [500, "usd", /\$5\.00/],
  [500, "jpy", /¥500$/],
  [1234, "kwd", /1\.234/],
])("%i of %s is in its own currency and unit", (amount, currency, shown) => expect(money(amount, currency)).toMatch(shown));

test("a label ends at a word", () => {
  expect(brief("one two  three\nfour", 9)).toBe("one two…");
  expect(brief("short")).toBe("short");
});
