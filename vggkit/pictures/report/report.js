// The figures for any batch, dtype and step. Each moment of a step holds constant + perImage · batch bytes; the page has
// only the moments that are highest at some batch, and the peak is the first of the highest. For a card, the page has each
// step's allocations, and plays them in torch's allocator. All numbers stay below 2^53, where they are exact.

const data = JSON.parse(document.getElementById("data").textContent);
const { rules } = data;
const controls = document.getElementById("controls");
const [batchInput, dtypeInput, stepInput, cardInput, contextInput, allocatorInput] = ["batch", "dtype", "step", "card", "context", "allocator"].map(
  (id) => document.getElementById(id),
);
const message = document.getElementById("message");

// Numbers as text, as vggkit's numbers.py writes them

function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ",");
}

// Rounds halves to the even digit. A number is halfway between two of two decimals only if it is an odd number of eighths.
function twoDecimals(number) {
  return ((number * 8) % 4 === 1 ? number - 0.001 : number).toFixed(2);
}

// The same for one decimal, where it must be an odd number of quarters.
function oneDecimal(number) {
  return ((number * 4) % 4 === 1 ? number - 0.01 : number).toFixed(1);
}

function inUnits(size, base, units) {
  if (size < base) {
    return `${size} B`;
  }
  let power = 1;
  while (power < units.length && Number(twoDecimals(size / base ** power)) >= base) {
    power += 1;
  }
  return `${twoDecimals(size / base ** power).replace(/\B(?=(\d{3})+\.)/g, ",")} ${units[power - 1]}`;
}

function megabytes(size) {
  return inUnits(size, 1000, ["kB", "MB", "GB", "TB", "PB", "EB"]);
}

function mebibytes(size) {
  return inUnits(size, 1024, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
}

function percent(part, whole) {
  return `${oneDecimal((100 * part) / whole)} %`;
}

// Memory

function at([constant, perImage], batch) {
  return constant + perImage * batch;
}

function stepOf(network, dtype, step) {
  return network.steps[network.step_of[dtype][step]];
}

function peakOf(step, batch) {
  return step.moments.reduce((highest, moment) => (at(moment.size, batch) > at(highest.size, batch) ? moment : highest));
}

// Every figure of a network's tensors: its number, by which a table is sorted, and its text.
function tensorFigures(network, chosen) {
  const step = stepOf(network, chosen.dtype, chosen.step);
  const peak = peakOf(step, chosen.batch);
  const size = at(peak.size, chosen.batch);
  const saved = at(step.saved_for_backward, chosen.batch);
  const figures = {
    peak_bytes: [size, grouped(size)],
    peak: [size, megabytes(size)],
    peak_binary: [size, mebibytes(size)],
    peak_at: [null, peak.event],
    saved: [saved, megabytes(saved)],
    saved_bytes: [saved, grouped(saved)],
    steady: [step.steady_bytes, megabytes(step.steady_bytes)],
    steady_bytes: [step.steady_bytes, grouped(step.steady_bytes)],
  };
  data.kinds.forEach((kind, index) => {
    const part = at(peak.by_kind[index], chosen.batch);
    figures[`${kind}_bytes`] = [part, grouped(part)];
    figures[kind] = [part, megabytes(part)];
    figures[`${kind}_share`] = [part, percent(part, size)];
  });
  return figures;
}

// Every figure of a network on a card, but for the largest batch that runs.
function cardFigures(network, chosen) {
  const loop = loopOf(network.loops, chosen.dtype, chosen.step);
  const { allocated, reserved } = steadyUse(loop, chosen.batch, chosen.isExpandable);
  const holes = reserved - allocated;
  const smallest = stepOf(network, chosen.dtype, chosen.step).smallest_batch;
  return {
    allocated: [allocated, megabytes(allocated)],
    reserved: [reserved, megabytes(reserved)],
    reserved_bytes: [reserved, grouped(reserved)],
    holes: [holes, percent(holes, reserved)],
    verdict: verdictFigure(run(loop, chosen.batch, chosen.card, chosen.isExpandable)),
    tensors_alone: batchFigure(largestOfTensors(loop, smallest, chosen.card), smallest),
  };
}

// What becomes of a loop; it is sorted by how far the loop comes.
function verdictFigure(steps) {
  const last = steps.at(-1);
  if (last === null) {
    return [steps.length - 1, `runs out in step ${steps.length}`];
  }
  return last.retries ? [rules.most_steps, "runs, with retries"] : [rules.most_steps + 1, "runs"];
}

function batchFigure(largest, smallest) {
  return largest < smallest ? [0, `not even batch ${smallest}`] : [largest, `batch ${grouped(largest)}`];
}

// The search for the largest batch that runs. Between slices of it the page does what else it has to do. A newer search ends
// an older one, which goes on where it stopped if it is chosen again.

const SLICE = 10; // milliseconds
const searches = new Map();
let newest = 0;

function searchOf(index, { dtype, step, card, isExpandable }) {
  const key = [index, dtype, step, card.bytes, card.room, isExpandable].join();
  if (!searches.has(key)) {
    const network = data.networks[index];
    const smallest = stepOf(network, dtype, step).smallest_batch;
    searches.set(key, { tries: largestBatch(loopOf(network.loops, dtype, step), smallest, card, isExpandable), smallest, largest: null });
  }
  return searches.get(key);
}

async function search(chosen) {
  const number = (newest += 1);
  const table = document.getElementById("card-table").closest("table");
  table.setAttribute("aria-busy", "true");
  let begun = performance.now();
  for (const index of data.networks.keys()) {
    const one = searchOf(index, chosen);
    while (one.largest === null) {
      const { done, value } = one.tries.next();
      if (done) {
        one.largest = value;
      } else if (performance.now() - begun > SLICE) {
        await new Promise((resolve) => setTimeout(resolve));
        if (number !== newest) {
          return;
        }
        begun = performance.now();
      }
    }
    show(table.querySelector(`[data-network="${index}"] [data-largest]`), ...batchFigure(one.largest, one.smallest));
  }
  table.removeAttribute("aria-busy");
  sort(table);
}

// What the controls say, or null and a message beside them

function wrong(input, text) {
  input.setAttribute("aria-invalid", "true");
  message.textContent = text;
  return null;
}

function found(input) {
  return input.validity.badInput ? "something else" : input.value || "nothing";
}

function choice() {
  [batchInput, cardInput, contextInput].forEach((input) => input.removeAttribute("aria-invalid"));
  message.textContent = "";
  const batch = batchInput.valueAsNumber;
  if (!Number.isInteger(batch) || batch < data.smallest_batch || batch > data.largest_batch) {
    return wrong(batchInput, `Batch: expected a whole number from ${data.smallest_batch} to ${grouped(data.largest_batch)}, found ${found(batchInput)}.`);
  }
  const thousandths = Math.round(cardInput.valueAsNumber * 1000);
  if (!(thousandths >= 1 && thousandths <= 4096000) || thousandths / 1000 !== cardInput.valueAsNumber) {
    return wrong(cardInput, `Card: expected GiB from 0.001 to 4,096, with up to three decimals, found ${found(cardInput)}.`);
  }
  const bytes = (thousandths * 2 ** 30 - ((thousandths * 2 ** 30) % 1000)) / 1000;
  const room = bytes - contextInput.valueAsNumber * 2 ** 20;
  if (!Number.isInteger(contextInput.valueAsNumber) || contextInput.valueAsNumber < 0 || room <= 0) {
    return wrong(contextInput, `CUDA context: expected a whole number of MiB from 0, less than the card has, found ${found(contextInput)}.`);
  }
  return { batch, dtype: dtypeInput.value, step: stepInput.value, card: { bytes, room }, isExpandable: allocatorInput.value !== "" };
}

// Putting it on the page

function show(element, number, text) {
  element.textContent = text;
  if (number !== null) {
    element.dataset.value = number;
  }
}

function update() {
  const chosen = choice();
  document.body.classList.toggle("stale", chosen === null);
  if (chosen === null) {
    return;
  }
  data.networks.forEach((network, index) => {
    const figures = { ...tensorFigures(network, chosen), ...cardFigures(network, chosen) };
    for (const part of document.querySelectorAll(`[data-network="${index}"]`)) {
      for (const element of part.querySelectorAll("[data-figure]")) {
        show(element, ...figures[element.dataset.figure]);
      }
      for (const row of part.querySelectorAll("[data-kind]")) {
        row.hidden = !figures[row.dataset.kind][0];
        row.querySelector(".bar").style.width = figures[`${row.dataset.kind}_share`][1].replace(" ", "");
      }
    }
  });
  for (const element of document.querySelectorAll("[data-macs]")) {
    const macs = element.dataset.macs * chosen.batch;
    show(element, macs, grouped(macs));
  }
  for (const element of document.querySelectorAll("[data-elements]")) {
    const bytes = element.dataset.elements * chosen.batch * data.element_bytes[chosen.dtype];
    show(element, bytes, megabytes(bytes));
  }
  const size = `batch ${chosen.batch}, ${chosen.dtype}`;
  const step = `${size}, ${stepInput.selectedOptions[0].textContent}`;
  const card = `${cardInput.valueAsNumber} GiB less CUDA's ${contextInput.valueAsNumber} MiB`;
  const words = { size, step, card: chosen.isExpandable ? `${card}, expandable segments` : card };
  for (const element of document.querySelectorAll("[data-chosen]")) {
    element.textContent = words[element.dataset.chosen];
  }
  document.querySelectorAll("table.sortable").forEach(sort);
  search(chosen);
}

// Sorting

const alphabet = new Intl.Collator("en", { numeric: true });

function compared(a, b) {
  return "value" in a.dataset ? a.dataset.value - b.dataset.value : alphabet.compare(a.textContent, b.textContent);
}

// Sorts by the column whose heading was chosen; equal rows keep the order in which the page opened.
function sort(table) {
  const headings = [...table.tHead.rows[0].cells];
  const column = headings.findIndex((heading) => heading.hasAttribute("aria-sort"));
  if (column < 0) {
    return;
  }
  const sign = headings[column].getAttribute("aria-sort") === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].sort((a, b) => a.dataset.order - b.dataset.order);
  rows.sort((a, b) => sign * compared(a.cells[column], b.cells[column]));
  table.tBodies[0].append(...rows);
}

function sortBy(heading) {
  const order = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of heading.parentElement.cells) {
    other.removeAttribute("aria-sort");
  }
  heading.setAttribute("aria-sort", order);
  sort(heading.closest("table"));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tBodies[0].rows].forEach((row, index) => (row.dataset.order = index));
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }
}

// A tab for each network

const tabs = [...document.querySelectorAll("[role=tab]")];

function open(chosen) {
  for (const tab of tabs) {
    const selected = tab === chosen;
    tab.setAttribute("aria-selected", selected);
    tab.tabIndex = selected ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !selected;
  }
}

function neighbour(index, key) {
  const places = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: tabs.length - 1 };
  return key in places ? tabs[(places[key] + tabs.length) % tabs.length] : null;
}

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const next = neighbour(index, event.key);
    if (next) {
      event.preventDefault();
      open(next);
      next.focus();
    }
  });
});

// On a narrow screen, a picture fits the screen; enlarged, it is as large as on a wide one, and scrolls in its box

for (const button of document.querySelectorAll(".enlarge")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const enlarged = button.parentElement.classList.toggle("enlarged");
    button.setAttribute("aria-pressed", enlarged);
  });
}

// Light and dark

const theme = document.getElementById("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const said = document.documentElement.dataset.theme;
  return said ? said === "dark" : prefersDark.matches;
}

function nameTheme() {
  theme.textContent = isDark() ? "Light colours" : "Dark colours";
}

theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
prefersDark.addEventListener("change", nameTheme);

// The first state

controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("input", update);
controls.reset(); // a browser may remember what was typed before the page was loaded again
controls.hidden = false;
theme.hidden = false;
if (tabs.length) {
  tabs[0].parentElement.hidden = false;
  open(tabs[0]);
}
nameTheme();
document.querySelectorAll("[data-largest]").forEach((cell) => (cell.textContent = "…"));
update();
