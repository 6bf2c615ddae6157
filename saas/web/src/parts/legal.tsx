/** Links to the terms and the privacy policy, and the question whether their current versions are accepted. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";

import { api, type Config, ok } from "../api";
import { signOut } from "../session";
import { t } from "../strings";
import { Dialog } from "./dialog";
import { Problem } from "./notices";

export function LegalLinks({ config }: { config: Config }) {
  return (
    <footer className="legal">
      {config.documents.map(({ name, url }) => (
        <a key={name} href={url} target="_blank" rel="noopener">
          {t.legal.title[name]}
        </a>
      ))}
      <Link href="/report">{t.report.link}</Link>
    </footer>
  );
}

/** Asks whoever has not accepted the current versions. Where they must be accepted, the only other way is out. */
export function Agreement({ config }: { config: Config }) {
  const queries = useQueryClient();
  const [later, setLater] = useState(false);
  const { data } = useQuery({ queryKey: ["documents"], queryFn: () => ok(api.GET("/api/me/documents")), enabled: config.documents.length > 0 });
  const missing = data?.documents.filter((document) => document.accepted_at === null) ?? [];
  const accept = useMutation({
    mutationFn: () => ok(api.POST("/api/me/documents", { body: Object.fromEntries(missing.map(({ name, version }) => [name, version])) })),
    onSuccess: (now) => queries.setQueryData(["documents"], now),
  });
  if (!data || missing.length === 0 || later) return null;
  return (
    <Dialog title={t.legal.ask} onClose={() => !data.required && setLater(true)} alert>
      <p>{t.legal.read}</p>
      <ul className="documents">
        {missing.map(({ name, version, url }) => (
          <li key={name}>
            <a href={url} target="_blank" rel="noopener">
              {t.legal.title[name]}
            </a>
            <span className="hint">{t.legal.version(version)}</span>
          </li>
        ))}
      </ul>
      <Problem error={accept.error} />
      <div className="actions end">
        {data.required ? (
          <button type="button" onClick={() => signOut()}>
            {t.settings.signOut}
          </button>
        ) : (
          <button type="button" onClick={() => setLater(true)}>
            {t.legal.later}
          </button>
        )}
        <button type="button" className="primary" disabled={accept.isPending} aria-busy={accept.isPending} onClick={() => accept.mutate()}>
          {t.legal.accept}
        </button>
      </div>
    </Dialog>
  );
}
