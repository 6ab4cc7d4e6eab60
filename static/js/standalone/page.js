/** Starts an exported page: the Try view, with the models that are part of the page. */

import { Catalog } from "../model/catalog.js";
import { Connection } from "../shell/connection.js";
import { byId } from "../ui/dom.js";
import { makeView } from "../views/try/index.js";

const view = makeView({ connection: new Connection(byId("gone")), catalog: new Catalog() });
view.element.hidden = false;
view.show({ view: "try", argument: null, query: new URLSearchParams() });
