/** Moments and ids as the desk shows them. */

/** A moment to the minute: “3 Nov, 14:05”, “3 Nov 2025, 14:05”. */
export function stamp(iso: string, now = new Date()): string {
  const when = new Date(iso);
  const year = when.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return when.toLocaleString(undefined, { day: "numeric", month: "short", year, hour: "2-digit", minute: "2-digit" });
}

/** The first part of an id. */
export const short = (id: string) => id.slice(0, 8);

const digits = (currency: string) => new Intl.NumberFormat(undefined, { style: "currency", currency: currency.toUpperCase() }).resolvedOptions().maximumFractionDigits ?? 2;

/** The step of an amount that is typed in: 0.01 of a dollar, 1 of a yen. */
export const step = (currency: string) => 10 ** -digits(currency);

/** What was typed, in the currency's smallest unit. */
export const smallest = (typed: string, currency: string) => Math.round(Number(typed) * 10 ** digits(currency));
