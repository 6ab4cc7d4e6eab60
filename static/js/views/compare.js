/** Comparisons: two to six models, measured side by side. */

import { CompareForm } from "../compareform.js";
import { JobView } from "../jobview.js";

/** @import { App } from "../router.js" */

/** @param {App} app */
export const makeView = (app) =>
  new JobView(app, {
    kind: "comparisons",
    view: "compare",
    word: "comparison",
    title: "Compare",
    lead: "Measures models here, now: memory each in a fresh process, latency in alternating blocks on the same inputs. The service goes on answering meanwhile.",
    button: "Run the comparison",
    form: new CompareForm(app.catalog),
    present: async () => new (await import("../comparison.js")).ComparisonPage(),
  });
