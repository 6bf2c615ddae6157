import { expect, test } from "vitest";

import { smallest, step } from "./format";

test("an amount that is typed in is in the currency's smallest unit", () => {
  expect([smallest("2.00", "usd"), smallest("0.29", "usd"), smallest("500", "jpy")]).toEqual([200, 29, 500]);
  expect([step("usd"), step("jpy")]).toEqual([0.01, 1]);
});
