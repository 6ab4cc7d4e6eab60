/** Starts the page. */

import { Catalog } from "./catalog.js";
import { Connection } from "./connection.js";
import { credentials } from "./credentials.js";
import { byId } from "./dom.js";
import { Router } from "./router.js";

const app = { connection: new Connection(byId("gone", HTMLElement)), catalog: new Catalog() };
const router = new Router(app, byId("main", HTMLElement), byId("navigation", HTMLElement), {
  try: () => import("./views/try.js"),
  compare: () => import("./views/compare.js"),
  sweep: () => import("./views/sweep.js"),
  train: () => import("./views/train.js"),
  models: () => import("./views/models.js"),
  live: () => import("./views/live.js"),
});

byId("skip", HTMLAnchorElement).addEventListener("click", (event) => {
  event.preventDefault(); // the address belongs to the views
  router.focus();
});

/** Most visitors need no key. */
const showKey = () => app.connection.fetched(async () => (await import("./keybutton.js")).showKeyButton(app.connection));

credentials.addEventListener("change", () => void showKey());
if (credentials.key !== null) void showKey();

await router.go();
