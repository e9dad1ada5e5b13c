// Builds src/regard/viewer/static from web/src; with --check it only says whether the committed files are these.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join } from "node:path";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = join(here, "..", "src", "regard", "viewer", "static");
const common = { bundle: true, minify: true, write: false, target: "es2022", charset: "ascii", legalComments: "none" };

// The worker's code travels inside the page as a string, from which the page makes a Blob.
const workerAsText = {
  name: "worker-as-text",
  setup(bundler) {
    bundler.onResolve({ filter: /^worker:/ }, (args) => ({ path: args.path.slice(7), namespace: "worker" }));
    bundler.onLoad({ filter: /.*/, namespace: "worker" }, async (args) => {
      const made = await build({ ...common, format: "iife", entryPoints: [join(here, "src", args.path)] });
      return { contents: made.outputFiles[0].text, loader: "text" };
    });
  },
};

const script = await build({
  ...common,
  format: "iife",
  entryPoints: [join(here, "src", "main.ts")],
  plugins: [workerAsText],
});
const widget = await build({ ...common, format: "esm", entryPoints: [join(here, "src", "widget.ts")] });
const style = await build({ ...common, entryPoints: [join(here, "src", "style.css")] });
// What the files were built from; a test recomputes it, also where there is no Node.
const hash = createHash("sha256");
for (const name of (await readdir(join(here, "src"))).sort()) hash.update(await readFile(join(here, "src", name)));
const origin = `/* built from web/src ${hash.digest("hex").slice(0, 16)} */\n`;

const made = {
  "viewer.js": origin + script.outputFiles[0].text.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--"),
  "widget.js": origin + widget.outputFiles[0].text,
  "viewer.css": style.outputFiles[0].text,
};
let same = true;
for (const [name, text] of Object.entries(made)) {
  const path = join(out, name);
  if (process.argv.includes("--check")) {
    const committed = await readFile(path, "utf8").catch(() => "");
    if (committed !== text) {
      console.error(`${name} is not what web/src builds: run 'npm run build' in web/ and commit it.`);
      same = false;
    }
  } else {
    await writeFile(path, text);
    console.log(`${name}: ${(text.length / 1024).toFixed(1)} KiB`);
  }
}
process.exit(same ? 0 : 1);
