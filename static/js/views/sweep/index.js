/** The Sweep view: finds the width from which Kronecker networks are faster than dense ones. */

import { JobView } from "../jobs/job-view.js";
import { SweepForm } from "./form.js";

/** @import { App } from "../../shell/types.js" */

/** @param {App} app */
export const makeView = (app) =>
  new JobView(app, {
    kind: "sweeps",
    view: "sweep",
    word: "sweep",
    title: "Sweep",
    lead: "From which width on is a Kronecker network faster than a dense one, on the service’s machine? Measures synthetic networks of several widths and ranks beside their dense counterparts.",
    button: "Run sweep",
    form: new SweepForm(app.catalog),
    present: async () => new (await import("./report.js")).SweepPresentation(),
  });
