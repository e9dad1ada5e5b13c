// Starts the page: its data, its source, its app.

import { App } from "./app";
import { Embedded } from "./embedded";
import type { PageData } from "./payload";
import { Served } from "./served";

const root = document.querySelector<HTMLElement>("main.regard")!;
const data = JSON.parse(document.querySelector("script.regard-data")!.textContent!) as PageData;
const source = data.server === undefined ? new Embedded(data) : new Served(data, data.server);
// The element carries its app, so that scripts and tests can ask for weights.
Object.assign(root, { viewer: new App(root, data, source) });
