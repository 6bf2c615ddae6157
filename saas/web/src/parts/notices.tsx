/** What a page says when there is nothing, not yet anything, or trouble. */

import { onlineManager } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState, useSyncExternalStore } from "react";
import { Link } from "wouter";

import { Refused, words } from "../api";
import { Icon, type IconName } from "../icons";
import { t } from "../strings";

export function Trouble({ title, words, action, onAction }: { title?: string; words: string; action?: string; onAction?: () => void }) {
  return (
    <div className="trouble" role="alert">
      <Icon name="alert" />
      <div>
        {title && <h2>{title}</h2>}
        <p>{words}</p>
      </div>
      {action && (
        <button type="button" onClick={onAction}>
          {action}
        </button>
      )}
    </div>
  );
}

export function Empty({ icon, title, top, children }: { icon: IconName; title: string; top?: boolean; children?: ReactNode }) {
  const Heading = top ? "h1" : "h2";
  return (
    <div className="empty">
      <Icon name={icon} />
      <Heading>{title}</Heading>
      {children}
    </div>
  );
}

/** Grey shapes where lines will be. */
export function Lines({ rows = 3 }: { rows?: number }) {
  return (
    <div className="skeleton" role="status" aria-label={t.loading}>
      {Array.from({ length: rows }, (_, i) => (
        <span key={i} />
      ))}
    </div>
  );
}

/** An error in its own words; too many requests count down, too few credits lead to the shop. */
export function Problem({ error, onAgain }: { error: unknown; onAgain?: () => void }) {
  const limited = error instanceof Refused && error.status === 429;
  const wait = useCountdown(limited ? (error.retryAfter ?? 5) : 0, error);
  if (!error) return null;
  if (limited && wait === 0) return null;
  return (
    <div className="problem" role="alert">
      <p>{limited ? t.trouble.limited(wait) : words(error)}</p>
      {error instanceof Refused && error.status === 402 && <Link href="/credits">{t.speak.buy}</Link>}
      {onAgain && !limited && (
        <button type="button" className="link" onClick={onAgain}>
          {t.again}
        </button>
      )}
    </div>
  );
}

/** Seconds left of `seconds`, from the moment `since` became what it is. */
export function useCountdown(seconds: number, since: unknown): number {
  const [left, setLeft] = useState(seconds);
  useEffect(() => {
    setLeft(seconds);
    if (!seconds) return;
    const end = Date.now() + 1000 * seconds;
    const timer = setInterval(() => setLeft(Math.max(0, Math.ceil((end - Date.now()) / 1000))), 250);
    return () => clearInterval(timer);
  }, [seconds, since]);
  return left;
}

export const useOnline = () =>
  useSyncExternalStore(
    (listener) => onlineManager.subscribe(listener),
    () => onlineManager.isOnline(),
  );

export function OfflineBar() {
  return useOnline() ? null : (
    <p className="offline" role="status">
      {t.trouble.offline}
    </p>
  );
}

/** What a query shows until it has data. */
export function Pending({ error, refetch, rows }: { error: unknown; refetch: () => void; rows?: number }) {
  return error ? <Trouble words={words(error)} action={t.again} onAction={refetch} /> : <Lines rows={rows} />;
}
