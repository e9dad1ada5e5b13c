// Starts the page: its data, its source, its app.

import { App } from "./app";
import { Embedded } from "./embedded";
import { PARENT, ready, throughParent } from "./frame";
import type { PageData } from "./payload";
import { overHttp, Served } from "./served";
import type { Source } from "./source";

const root = document.querySelector<HTMLElement>("main.regard")!;
const data = JSON.parse(document.querySelector("script.regard-data")!.textContent!) as PageData;

function sourceOf(server: string | undefined): Source {
  if (server === undefined) return new Embedded(data);
  return new Served(data, server === PARENT ? throughParent() : overHttp(server));
}

// The element carries its app, so that scripts and tests can ask for weights.
Object.assign(root, { viewer: new App(root, data, sourceOf(data.server)) });
if (data.server === PARENT) ready();
