/** A secret that is shown once, to be copied. */

import { copy } from "shared/clipboard.js";
import { useEffect, useId, useRef, useState } from "react";

import { Icon } from "../icons";
import { t } from "../strings";

export function ShownOnce({ title, hint, secret, copyIt, onSeen }: { title: string; hint: string; secret: string; copyIt: string; onSeen: () => void }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const id = useId();
  const [copied, setCopied] = useState(false);
  useEffect(() => heading.current?.focus(), []);
  return (
    <section className="panel stack shown-once" aria-labelledby={id}>
      <h2 id={id} ref={heading} tabIndex={-1}>
        {title}
      </h2>
      <p>{hint}</p>
      <code className="secret">{secret}</code>
      <div className="actions">
        <button type="button" className="primary" onClick={async () => setCopied(await copy(secret))}>
          <Icon name={copied ? "check" : "copy"} />
          {copied ? t.copied : copyIt}
        </button>
        <button type="button" onClick={onSeen}>
          {t.keys.seen}
        </button>
      </div>
    </section>
  );
}
