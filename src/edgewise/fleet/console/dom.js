// Makes elements. Text is only ever set as text: nothing that a device or a user wrote is read as markup.
const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick" || name === "onsubmit") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((each) => each !== null).map((each) => (each instanceof Node ? each : String(each))));
  return element;
}

export const h = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

export function table(caption, heads, rows) {
  if (!rows.length) return h("p", { class: "faint" }, "None yet.");
  return h("table", { "aria-label": caption },
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell ?? "–"))))));
}

export const section = (title, ...children) => h("section", { "aria-label": title }, h("h2", {}, title), ...children);

const TONES = {
  completed: "good", promote: "good", pass: "good", quiet: "good", rolled_back: "bad", aborted: "bad", rollback: "bad",
  fail: "bad", firing: "bad", open: "bad", paused: "wait", hold: "wait", unknown: "wait", too_few: "wait",
};
export const mark = (word) => h("span", { class: `mark ${TONES[word] ?? ""}` }, String(word).replaceAll("_", " "));
export const time = (ms) => (ms ? new Date(ms).toISOString().replace("T", " ").slice(0, 19) : "–");
export const figure = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString());
export const share = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}\u00a0%`);
// A share or a relative change, with its sign: small ones need digits that large ones do not. Spaces do not break.
export const change = (value) => {
  if (value === null || value === undefined) return "–";
  const percent = 100 * value;
  if (!percent) return "0\u00a0%";
  return `${percent > 0 ? "+" : ""}${percent.toFixed(Math.abs(percent) < 1 ? 3 : 1)}\u00a0%`;
};
export const span = (seconds) => {
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([each]) => seconds % each === 0);
  return `${seconds / size} ${unit}`;
};
