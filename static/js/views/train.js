/** Trainings: a Kronecker network and its dense twin, trained here and served at once. */

import { JobView } from "../jobview.js";
import { TrainForm } from "../trainform.js";

/** @import { App } from "../router.js" */

/** @param {App} app */
export const makeView = (app) =>
  new JobView(app, {
    kind: "trainings",
    view: "train",
    word: "training",
    title: "Train",
    lead: "Trains a Kronecker network and a dense one of the same widths on the same data, on the service’s machine, and serves both as soon as they are done.",
    button: "Train both",
    form: new TrainForm(),
    present: async () => new (await import("../training.js")).TrainingPage(),
  });
