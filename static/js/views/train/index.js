/** The Train view: trains a Kronecker network and its dense twin, and serves both. */

import { JobView } from "../jobs/job-view.js";
import { TrainForm } from "./form.js";

/** @import { App } from "../../shell/types.js" */

/** @param {App} app */
export const makeView = (app) =>
  new JobView(app, {
    kind: "trainings",
    view: "train",
    word: "training",
    title: "Train",
    lead: "Trains a Kronecker network and a dense one of the same widths on the same data, on the service’s machine, and serves both when training is done.",
    button: "Train both",
    form: new TrainForm(),
    present: async () => new (await import("./report.js")).TrainingPresentation(),
  });
