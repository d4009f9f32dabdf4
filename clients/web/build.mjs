// Bundles the pages into dist/, which Envoy serves. scripts/web.sh has made gen/ and dist/network.json before.
import { copyFile, mkdir } from "node:fs/promises";
import { build } from "esbuild";

await mkdir("dist", { recursive: true });
const options = {
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  sourcemap: false,
  logLevel: "warning",
};
await build({ ...options, entryPoints: { app: "src/main.ts", seats: "src/seats/main.ts" }, outdir: "dist" });
// A file of its own: MapLibre's worker needs no permission beyond the page's own folder then.
await build({
  ...options,
  entryPoints: { worker: "node_modules/maplibre-gl/dist/maplibre-gl-worker.mjs" },
  outdir: "dist",
});
for (const page of ["index.html", "seats.html"]) await copyFile(page, `dist/${page}`);
