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

const key = byId("key", HTMLButtonElement);

function showKey() {
  key.hidden = credentials.key === null && !credentials.wanted;
  key.textContent = credentials.key === null ? "Enter API key" : "API key";
}

key.addEventListener("click", () => {
  void app.connection.fetched(async () => {
    const { ASKS, askForKey } = await import("./keydialog.js");
    const why = credentials.key === null ? ASKS : "A key is in use in this tab.";
    if (await askForKey(why)) app.connection.dispatchEvent(new Event("back"));
  });
});
credentials.addEventListener("change", showKey);
showKey();

await router.go();
