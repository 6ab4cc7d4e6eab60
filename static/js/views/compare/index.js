/** The Compare view: measures two to six models side by side. */

import { JobView } from "../jobs/job-view.js";
import { CompareForm } from "./form.js";

/** @import { App } from "../../shell/types.js" */

/** @param {App} app */
export const makeView = (app) =>
  new JobView(app, {
    kind: "comparisons",
    view: "compare",
    word: "comparison",
    title: "Compare",
    lead: "Measures models on the service’s machine: memory of each in a fresh process, latency in alternating blocks on the same inputs. The service keeps answering requests meanwhile.",
    button: "Run comparison",
    form: new CompareForm(app.catalog),
    present: async () => new (await import("./report.js")).ComparisonPresentation(),
  });
