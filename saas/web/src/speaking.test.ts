import { expect, test } from "vitest";

import type { Job } from "./api";
import { costing, saying, type Shown } from "./speaking";
import { t } from "./strings";

const shown = (more: Partial<Shown>) => ({ phase: "done", seconds: 0, file: null, job: null, cut: false, stopped: false, error: null, ...more }) as Shown;
const job = (status: string, charged: number) => ({ status, charged, reserved: 54 }) as Job;

test("while it is asked for, made and done, that is said", () => {
  expect(saying(shown({ phase: "asking" }))).toBe(t.speak.waiting);
  expect(saying(shown({ phase: "speaking", seconds: 1 }))).toBe(t.speak.speaking);
  expect(saying(shown({ seconds: 3.8, file: new Blob() }))).toBe("3.8 s of speech.");
});

test("a price is told only once it is known", () => {
  expect(costing(shown({ phase: "speaking" }))).toBe("");
  expect(costing(shown({ phase: "settling" }))).toBe(t.speak.settling);
  expect(costing(shown({ job: job("succeeded", 38) }))).toBe("It cost 38 credits, 16 fewer than reserved.");
  expect(costing(shown({ job: job("succeeded", 54) }))).toBe("It cost 54 credits.");
});

test("a failure costs nothing, and that is said", () => {
  expect(costing(shown({ job: job("failed", 0) }))).toBe(t.speak.free);
  expect(saying(shown({ error: new Error("no") }))).toBe(t.speak.free);
});

test("speech that ended where its credits ended says so", () => {
  expect(costing(shown({ job: { ...job("succeeded", 54), partial: true } }))).toBe(`It cost 54 credits. ${t.speak.partial}`);
});

test("a connection that broke says how far it came, and what became of the rest", () => {
  expect(saying(shown({ cut: true, seconds: 2.5 }))).toBe("The connection was lost after 2.5 s.");
  expect(saying(shown({ cut: true }))).toBe(t.speak.brokeEarly);
  expect(costing(shown({ cut: true }))).toBe(t.speak.cutRunning);
  expect(costing(shown({ cut: true, job: job("succeeded", 30) }))).toContain(t.speak.kept);
});
