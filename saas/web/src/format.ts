/** Numbers, times and dates as people read them, in the browser's own language. */

const whole = new Intl.NumberFormat();

export const count = (n: number) => whole.format(n);
export const credits = (n: number) => whole.format(n);

/** Seconds as 0.8 s, 12 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const all = Math.round(seconds);
  if (all < 60) return `${all} s`;
  const minutes = Math.floor(all / 60);
  if (minutes < 60) return all % 60 ? `${minutes} min ${all % 60} s` : `${minutes} min`;
  return minutes % 60 ? `${whole.format(Math.floor(minutes / 60))} h ${minutes % 60} min` : `${whole.format(minutes / 60)} h`;
}

/** A place in a sound: 1:02.5. */
export function clock(seconds: number): string {
  const tenths = Math.round(10 * seconds);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}

/** A moment as today's time, or a day: “14:05”, “3 Nov”, “3 Nov 2025”. */
export function moment(iso: string, now = new Date()): string {
  const when = new Date(iso);
  if (when.toDateString() === now.toDateString()) return when.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  const year = when.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return when.toLocaleDateString(undefined, { day: "numeric", month: "short", year });
}

/** An amount in the smallest unit of its currency, as money: a dollar has a hundred of them, a yen is one. */
export function money(amount: number, currency: string): string {
  const format = new Intl.NumberFormat(undefined, { style: "currency", currency: currency.toUpperCase() });
  return format.format(amount / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2));
}

/** The first words of a text, for a label. */
export function brief(text: string, most = 60): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= most ? line : `${line.slice(0, most).replace(/\s\S*$/, "")}…`;
}
