import { expect, test } from "vitest";

import { typeOf, uploadHeaders } from "./clip";

test.each([
  ["audio/webm;codecs=opus", "recording", "audio/webm"],
  ["", "clip.FLAC", "audio/flac"],
  ["application/octet-stream", "a.b.m4a", "audio/mp4"],
  ["text/plain", "unknown", "audio/mpeg"],
])("a clip of type %j called %s is uploaded as %s", (type, name, expected) => expect(typeOf(new Blob([], { type }), name)).toBe(expected));

test("headers that browsers write themselves are left to them", () => {
  expect(uploadHeaders({ "Content-Type": "audio/wav", "content-length": "5", Host: "bucket" })).toEqual({ "Content-Type": "audio/wav" });
});
