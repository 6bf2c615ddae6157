/** Starts the app: asks the server what it is, then shows it. */

import "shared/style.css";
import "./style.css";

import { onlineManager, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { type Config, ORIGIN, plain, Refused } from "./api";
import { App } from "./app";
import { ErrorBoundary } from "./parts/error-boundary";
import { Start } from "./pages/start";
import { watch } from "./session";

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 15_000,
      retry: (failures, e) => !(e instanceof Refused && e.status >= 400 && e.status < 500) && failures < 2,
      retryDelay: (failures) => 500 * 2 ** failures,
    },
  },
});

onlineManager.setOnline(navigator.onLine); // from here on it hears of changes

const root = createRoot(document.getElementById("root")!);

async function start() {
  try {
    const config = (await (await plain(`${ORIGIN}/api/config`)).json()) as Config;
    watch(config.supabase_url || ORIGIN, config.supabase_key || "embedded");
    queries.setQueryData(["config"], config);
    queries.setQueryDefaults(["config"], { staleTime: Infinity });
    root.render(
      <StrictMode>
        <ErrorBoundary>
          <QueryClientProvider client={queries}>
            <App config={config} />
          </QueryClientProvider>
        </ErrorBoundary>
      </StrictMode>,
    );
  } catch (e) {
    root.render(<Start error={e} again={start} />);
  }
}

start();
