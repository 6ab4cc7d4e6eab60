/** Sweeps: from which width on a Kronecker network pays, on this machine. */

import { JobView } from "../jobs/job-view.js";
import { SweepForm } from "./form.js";

/** @import { App } from "../../shell/router.js" */

/** @param {App} app */
export const makeView = (app) =>
  new JobView(app, {
    kind: "sweeps",
    view: "sweep",
    word: "sweep",
    title: "Sweep",
    lead: "From which width on does a Kronecker network pay, on this machine? Measures synthetic networks of many widths and ranks beside their dense counterparts.",
    button: "Run the sweep",
    form: new SweepForm(app.catalog),
    present: async () => new (await import("./report.js")).SweepPage(),
  });
