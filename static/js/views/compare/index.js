/** Comparisons: two to six models, measured side by side. */

import { CompareForm } from "./form.js";
import { JobView } from "../jobs/job-view.js";

/** @import { App } from "../../shell/router.js" */

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
    present: async () => new (await import("./report.js")).ComparisonPage(),
  });
