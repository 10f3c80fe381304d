// Chooses the page by the address's fragment, asks again every two seconds, and draws only what has changed.
import { forget, keep, token } from "./api.js";
import { h } from "./dom.js";
import { rollout, rollouts } from "./rollouts.js";
import { alerts, audit, devices, fleet, fleets, release, releases } from "./views.js";

const PAGES = { fleets: "Fleets", devices: "Devices", releases: "Releases", rollouts: "Rollouts", alerts: "Alerts", audit: "Audit log" };
const EVERY_MS = 2000;
const main = document.getElementById("main"), dialog = document.getElementById("confirm"), live = document.getElementById("live");
const SAID_MS = 8000;
let drawn = "", turn = 0, timer = 0, hush = 0, said = null;

function say(text) {
  clearTimeout(hush);
  live.textContent = text;
  hush = setTimeout(() => { live.textContent = ""; }, SAID_MS); // it covers what is below it
}

function view() {
  const [page = "fleets", ...rest] = location.hash.slice(2).split("/").filter(Boolean).map(decodeURIComponent);
  if (page === "fleets") return [page, rest.length ? () => fleet(rest[0]) : fleets];
  if (page === "devices") return [page, () => devices(rest[0])];
  if (page === "releases") return [page, rest.length === 2 ? () => release(...rest) : releases];
  if (page === "rollouts") return [page, rest.length ? () => rollout(confirm, rest[0]) : rollouts];
  if (page === "alerts") return [page, alerts];
  if (page === "audit") return [page, audit];
  return ["fleets", fleets];
}

function confirm(name, send) {
  document.getElementById("confirm-title").textContent = `${name} this rollout?`;
  document.getElementById("confirm-yes").textContent = name;
  const reason = document.getElementById("reason");
  reason.value = "";
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    dialog.close();
    try {
      const kept = await send(reason.value);
      say(`${name}: the rollout is ${kept.rollout.state.replaceAll("_", " ")}.`);
    } catch (error) {
      say(`${name} was refused: ${error.message}`);
    }
    draw();
  };
  dialog.showModal();
  reason.focus();
}

function enter(why) {
  drawn = "";
  document.getElementById("leave").hidden = true;
  const field = h("input", { id: "token", type: "password", autocomplete: "off", required: true });
  main.replaceChildren(h("h1", {}, "Sign in"), h("form", { onsubmit: (event) => {
    event.preventDefault();
    keep(field.value.trim());
    draw();
  } }, h("label", { for: "token" }, "Token of a viewer, operator or signer. It is kept in this tab only."), field,
  h("button", { type: "submit", class: "primary" }, "Show the fleet")));
  if (why) say(why);
  field.focus();
}

async function draw() {
  clearTimeout(timer);
  if (!token()) return enter("");
  const mine = ++turn;
  const [page, make] = view();
  document.getElementById("nav").replaceChildren(...Object.entries(PAGES).map(([name, title]) =>
    h("a", { href: `#/${name}`, "aria-current": name === page ? "page" : null }, title)));
  document.getElementById("leave").hidden = false;
  try {
    const parts = (await make()).filter(Boolean);
    if (mine !== turn) return;
    show(h("div", {}, parts));
  } catch (error) {
    if (mine !== turn) return;
    if (error.status === 401) { forget(); return enter(error.message); }
    say(error.message);
  }
  timer = setTimeout(draw, EVERY_MS);
}

function show(next) {
  if (next.innerHTML === drawn) return; // read, never written: the page as it stands keeps focus and open details
  const open = new Set([...main.querySelectorAll("details[open] > summary")].map((each) => each.textContent));
  const key = main.contains(document.activeElement) ? document.activeElement.dataset.key ?? document.activeElement.getAttribute("href") : null;
  drawn = next.innerHTML;
  main.replaceChildren(next);
  for (const each of main.querySelectorAll("details > summary")) each.parentElement.open = open.has(each.textContent);
  if (key) [...main.querySelectorAll("button, a")].find((each) => each.dataset.key === key || each.getAttribute("href") === key)?.focus();
  const newest = main.querySelector("[aria-label='Last decision'] p")?.textContent ?? "";
  if (newest && said !== null && newest !== said) say(newest); // what stood there when the page was opened is no news
  said = newest;
}

document.getElementById("confirm-no").addEventListener("click", () => dialog.close());
document.getElementById("leave").addEventListener("click", () => { forget(); enter("The token is forgotten."); });
window.addEventListener("hashchange", () => { drawn = ""; said = null; main.focus(); draw(); });
draw();
