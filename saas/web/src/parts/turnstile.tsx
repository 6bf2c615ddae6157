/** Cloudflare's check that a person is there. Without a site key there is none, and `token` is not needed. */

import { useEffect, useRef, useState } from "react";

import { t } from "../strings";

const SCRIPT = "https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit";

interface Api {
  render(element: HTMLElement, options: Record<string, unknown>): string;
  reset(id: string): void;
  remove(id: string): void;
}

let loading: Promise<Api> | null = null;

function load(): Promise<Api> {
  loading ??= new Promise<Api>((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: SCRIPT, async: true });
    script.onload = () => resolve((globalThis as unknown as { turnstile: Api }).turnstile);
    script.onerror = () => {
      loading = null;
      script.remove();
      reject(new Error(t.turnstile.failed));
    };
    document.head.append(script);
  });
  return loading;
}

/** A token for one request: `undefined` while there is none yet. `spent()` asks for the next. */
export function useTurnstile(siteKey: string | null | undefined, action: "sign-in" | "sign-up" | "create-key" | "report") {
  const box = useRef<HTMLDivElement>(null);
  const widget = useRef<{ api: Api; id: string } | null>(null);
  const [token, setToken] = useState<string>();
  const [failed, setFailed] = useState(false);

  useEffect(() => {
    if (!siteKey) return;
    let alive = true;
    setToken(undefined);
    load().then(
      (api) => {
        if (!alive || !box.current) return;
        const id = api.render(box.current, {
          sitekey: siteKey,
          action,
          theme: document.documentElement.dataset.theme ?? "auto",
          size: "flexible",
          callback: setToken,
          "expired-callback": () => setToken(undefined),
          "error-callback": () => setFailed(true),
        });
        widget.current = { api, id };
      },
      () => alive && setFailed(true),
    );
    return () => {
      alive = false;
      if (widget.current) widget.current.api.remove(widget.current.id);
      widget.current = null;
    };
  }, [siteKey, action]);

  return {
    token,
    ready: !siteKey || token !== undefined,
    spent() {
      if (!widget.current) return;
      setToken(undefined);
      widget.current.api.reset(widget.current.id);
    },
    element: siteKey ? (
      <div className="turnstile">
        <div ref={box} role="group" aria-label={t.turnstile.label} />
        {failed && (
          <p className="error" role="alert">
            {t.turnstile.failed}
          </p>
        )}
      </div>
    ) : null,
  };
}
