/** Starts the page. */

import { credentials } from "./api/credentials.js";
import { Catalog } from "./model/catalog.js";
import { Connection } from "./shell/connection.js";
import { Router } from "./shell/router.js";
import { byId } from "./ui/dom.js";

const JOB_STYLES = ["ui/panels", "ui/forms", "ui/tables", "charts/plot", "views/jobs"];

const app = { connection: new Connection(byId("gone")), catalog: new Catalog() };
const router = new Router(app, byId("main"), byId("navigation"), {
  try: { load: () => import("./views/try/index.js"), styles: [] }, // its styles are in index.html
  compare: { load: () => import("./views/compare/index.js"), styles: [...JOB_STYLES, "model/picker", "charts/bars", "views/compare"] },
  sweep: { load: () => import("./views/sweep/index.js"), styles: [...JOB_STYLES, "views/sweep"] },
  train: { load: () => import("./views/train/index.js"), styles: [...JOB_STYLES, "views/train"] },
  models: { load: () => import("./views/models/index.js"), styles: ["ui/panels", "views/models"] },
  live: { load: () => import("./views/live/index.js"), styles: ["ui/panels", "ui/tables", "charts/plot", "views/live"] },
});

byId("skip", HTMLAnchorElement).addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  router.focus();
});

// Fetched only where the service has API keys.
const keyDialog = () => import("./shell/key-dialog.js");
credentials.renew = async (sent, error) => (await keyDialog()).renewKey(sent, error);
const showKey = () => app.connection.fetched(async () => (await keyDialog()).showKeyButton(app.connection));
credentials.addEventListener("change", () => void showKey());
if (credentials.key !== null) void showKey();

await router.go();
