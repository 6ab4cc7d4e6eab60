/** Starts the page. */

import { Catalog } from "./model/catalog.js";
import { Connection } from "./shell/connection.js";
import { credentials } from "./api/credentials.js";
import { byId } from "./ui/dom.js";
import { Router } from "./shell/router.js";

const app = { connection: new Connection(byId("gone", HTMLElement)), catalog: new Catalog() };
const router = new Router(app, byId("main", HTMLElement), byId("navigation", HTMLElement), {
  try: () => import("./views/try/index.js"),
  compare: () => import("./views/compare/index.js"),
  sweep: () => import("./views/sweep/index.js"),
  train: () => import("./views/train/index.js"),
  models: () => import("./views/models/index.js"),
  live: () => import("./views/live/index.js"),
});

byId("skip", HTMLAnchorElement).addEventListener("click", (event) => {
  event.preventDefault(); // the address belongs to the views
  router.focus();
});

/** Most visitors need no key. */
const showKey = () => app.connection.fetched(async () => (await import("./shell/key-button.js")).showKeyButton(app.connection));

credentials.addEventListener("change", () => void showKey());
if (credentials.key !== null) void showKey();

await router.go();
