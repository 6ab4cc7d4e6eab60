/** Starts the page: asks for the models, and asks again when the service was away. */

import * as api from "./api.js";
import { CompareView } from "./compare.js";
import { Connection } from "./connection.js";
import { byId } from "./dom.js";
import { defaults } from "./models.js";
import { showStructure } from "./structure.js";
import { TryView } from "./try.js";

const connection = new Connection(byId("gone", HTMLElement));
const tryView = new TryView(connection);
const compareView = new CompareView(connection);
let opened = false;

async function open() {
  const answers = byId("answers", HTMLElement);
  try {
    const models = defaults(await api.models());
    opened = models.length > 0;
    byId("structure", HTMLElement).hidden = !showStructure(
      models,
      byId("structure-words", HTMLElement),
      byId("structure-figures", HTMLElement),
    );
    compareView.open(models);
    await tryView.open(models);
  } catch (error) {
    if (!(error instanceof api.Refused || error instanceof api.Unreachable)) throw error;
    const verdict = byId("verdict", HTMLElement);
    verdict.textContent = `No models: ${error.message}`;
    verdict.className = "verdict failed";
    connection.lost(error instanceof api.Unreachable ? error.message : "The service is not ready yet.");
  } finally {
    answers.removeAttribute("aria-busy");
  }
}

connection.addEventListener("back", () => {
  if (!opened) void open();
});

await open();
