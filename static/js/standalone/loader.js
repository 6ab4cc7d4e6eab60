/** Unpacks the script of an exported page and starts it; the page's policy allows this script and that one, by their hashes. */

import { byId } from "../ui/dom.js";
import { decode } from "./base64.js";

const packed = decode(byId("bundle").textContent ?? "");
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const script = document.createElement("script");
script.type = "module";
script.textContent = await new Response(unpacked).text();
document.body.append(script);
