import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const page = new URL("../../inference/server/page", import.meta.url).pathname; // the playground's player and waveform are this app's, too

export default defineConfig({
  base: "/app/",
  plugins: [react()],
  resolve: { alias: { page } },
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "/api": "http://127.0.0.1:8090", "/auth": "http://127.0.0.1:8090", "/v1": "http://127.0.0.1:8090" }, fs: { allow: [".", page] } },
  test: { include: ["src/**/*.test.ts"], testTimeout: 600_000 }, // which only a hang reaches
});
