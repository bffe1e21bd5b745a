// What every page loads. Pages work without any of it; it makes them live, quick to move in, and local in their times.

import { localTimes } from "./times.js";
import { keys } from "./keys.js";
import { live } from "./live.js";
import { palette } from "./palette.js";
import { theme } from "./theme.js";
import { choosing } from "./choosing.js";
import { filters } from "./filters.js";
import { forms } from "./forms.js";
import { graph } from "./graph.js";
import { logs } from "./logs.js";

localTimes();
theme();
palette();
keys();
choosing();
filters();
forms();
graph();
logs();
live();
const tab = document.querySelector(".tabs [aria-current]"); // the tabs move to it, and the page stays where it is
if (tab) tab.parentElement.scrollLeft = tab.offsetLeft - (tab.parentElement.clientWidth - tab.offsetWidth) / 2;
