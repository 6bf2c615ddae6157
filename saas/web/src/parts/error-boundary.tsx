import { Component, type ReactNode } from "react";

import { t } from "../strings";
import { Trouble } from "./notices";

/** Catches what breaks while drawing, so that the person is never left with a blank page. */
export class ErrorBoundary extends Component<{ children: ReactNode }, { broken: boolean }> {
  override state = { broken: false };

  static getDerivedStateFromError() {
    return { broken: true };
  }

  override render() {
    if (!this.state.broken) return this.props.children;
    return (
      <main className="alone">
        <Trouble words={t.trouble.broken} action={t.trouble.reload} onAction={() => location.reload()} />
      </main>
    );
  }
}
