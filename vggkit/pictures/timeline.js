"use strict";

// A crosshair that follows the pointer, or the arrow keys, and names the moment: the operation, and the bytes of each kind.

const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("crosshair");
const moment = document.getElementById("moment");
const picture = slider.querySelector("svg");
const { left, right, top: high, bottom: low } = data.plot;
const last = data.moments.length - 1;
let chosen = data.peak;

function line() {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "line");
  element.setAttribute("stroke", "#222222");
  element.setAttribute("stroke-width", "0.8");
  return picture.appendChild(element);
}

function draw(element, x1, y1, x2, y2) {
  Object.entries({ x1, y1, x2, y2 }).forEach(([name, value]) => element.setAttribute(name, value));
}

const upright = line();
const level = line();

function show(index) {
  chosen = Math.min(Math.max(index, 0), last);
  const { event, bytes, texts } = data.moments[chosen];
  const x = left + ((chosen + 0.5) / (last + 1)) * (right - left);
  const y = low - (bytes / data.top_bytes) * (low - high);
  draw(upright, x, high, x, low);
  draw(level, left, y, x, y);
  moment.querySelector("strong").textContent = event;
  moment.querySelector("span").textContent = `operation ${chosen + 1} of ${last + 1}`;
  const rows = moment.querySelectorAll("tr"); // a row behind the last text is the same at every moment
  texts.forEach(([short, full], number) => {
    rows[number].cells[1].textContent = short;
    rows[number].cells[2].textContent = full;
  });
  slider.setAttribute("aria-valuenow", chosen + 1);
  slider.setAttribute("aria-valuetext", `${event}: ${texts[texts.length - 1][0]}`);
}

slider.addEventListener("pointermove", (event) => {
  const { x } = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
  show(Math.floor(((x - left) / (right - left)) * (last + 1)));
});

slider.addEventListener("keydown", (event) => {
  const places = {
    ArrowLeft: chosen - 1, ArrowRight: chosen + 1, ArrowDown: chosen - 1, ArrowUp: chosen + 1,
    PageDown: chosen - 10, PageUp: chosen + 10, Home: 0, End: last,
  };
  if (event.key in places) {
    event.preventDefault();
    show(places[event.key]);
  }
});

const said = { role: "slider", tabindex: 0, "aria-label": "Moment of the step", "aria-valuemin": 1, "aria-valuemax": last + 1 };
Object.entries(said).forEach(([name, value]) => slider.setAttribute(name, value));
moment.hidden = false;
show(chosen);
