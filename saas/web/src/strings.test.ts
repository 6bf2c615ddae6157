import { expect, test } from "vitest";

import { d } from "./desk/strings";
import { t } from "./strings";

const files = import.meta.glob(["./**/*.{ts,tsx}", "!./**/strings.ts", "!./**/*.test.ts"], { query: "?raw", import: "default", eager: true });
const source = Object.values(files).join("\n");

test.each([
  ["t", t],
  ["d", d],
])("every string of %s is shown somewhere", (all, strings) => {
  const unused = Object.entries(strings).flatMap(([part, value]) =>
    typeof value === "object" && !Array.isArray(value)
      ? Object.keys(value).filter((name) => !source.includes(`${all}.${part}.${name}`) && !source.includes(`${all}.${part}[`)).map((name) => `${part}.${name}`)
      : source.includes(`${all}.${part}`)
        ? []
        : [part],
  );
  expect(unused).toEqual([]);
});
