import { words } from "../api";
import { Icon } from "../icons";
import { Trouble } from "../parts/notices";
import { t } from "../strings";

/** The server cannot be reached at all. */
export function Start({ error, again }: { error: unknown; again: () => void }) {
  return (
    <main className="alone">
      <h1 className="brand">
        <Icon name="fish" />
        {t.name}
      </h1>
      <Trouble title={t.trouble.start} words={words(error)} action={t.again} onAction={again} />
    </main>
  );
}
