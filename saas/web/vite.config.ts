import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const shared = new URL("../../inference/server/page/shared", import.meta.url).pathname; // what the playground and the app have in common

export default defineConfig({
  base: "/app/",
  plugins: [react()],
  resolve: { alias: { shared } },
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "/api": "http://127.0.0.1:8090", "/auth": "http://127.0.0.1:8090", "/v1": "http://127.0.0.1:8090" }, fs: { allow: [".", shared] } },
  test: { include: ["src/**/*.test.ts"], testTimeout: 600_000 }, // which only a hang reaches
});
