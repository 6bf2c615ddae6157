import { expect, test } from "vitest";

import { t } from "./strings";

const files = import.meta.glob(["./**/*.{ts,tsx}", "!./strings.ts", "!./**/*.test.ts"], { query: "?raw", import: "default", eager: true });
const source = Object.values(files).join("\n");

test("every string is shown somewhere", () => {
  const unused = Object.entries(t).flatMap(([part, value]) =>
    typeof value === "object" && !Array.isArray(value)
      ? Object.keys(value).filter((name) => !source.includes(`t.${part}.${name}`) && !source.includes(`t.${part}[`)).map((name) => `${part}.${name}`)
      : source.includes(`t.${part}`)
        ? []
        : [part],
  );
  expect(unused).toEqual([]);
});
