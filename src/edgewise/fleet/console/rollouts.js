// Rollouts: the list, and one of them live with its commands.
import { ask, part } from "./api.js";
import { change, figure, h, mark, section, share, span, table, time } from "./dom.js";

const NAMES = { start: "Start", approve: "Approve", pause: "Pause", resume: "Resume", extend: "Extend", abort: "Abort", roll_back: "Roll back" };

function commands(rollout) {
  if (rollout.state === "draft") return ["start", "abort"];
  if (rollout.state === "paused") return ["resume", "roll_back", "abort"];
  if (rollout.state !== "staged") return [];
  return [rollout.stage_start_s === null ? "approve" : null, "pause", rollout.fractions.at(-1) >= 1 ? "extend" : null, "roll_back", "abort"].filter(Boolean);
}

export async function rollouts() {
  const found = await ask("rollouts");
  return [h("h1", {}, "Rollouts"), section("Rollouts", table("Rollouts", ["rollout", "product", "from", "to", "state", "stage", "changed (UTC)"], found.map(({ rollout, updated_ms }) =>
    [h("a", { href: `#/rollouts/${part(rollout.id)}` }, rollout.id), rollout.to_release.product, rollout.from_release.version, rollout.to_release.version,
      mark(rollout.state), rollout.stages[rollout.stage].name, time(updated_ms)])))];
}

export async function rollout(confirm, name) {
  const [kept, events] = await Promise.all([ask(`rollouts/${part(name)}`), ask(`rollouts/${part(name)}/events`)]);
  const now = kept.rollout;
  const buttons = commands(now).map((each) => h("button", {
    type: "button", "data-key": each, class: each === "abort" || each === "roll_back" ? "danger" : "primary",
    onclick: () => confirm(NAMES[each], (reason) => ask(`rollouts/${part(name)}/${each}`, { reason, revision: kept.revision })),
  }, NAMES[each]));
  return [h("h1", {}, `${now.to_release.product}: ${now.from_release.version} to ${now.to_release.version}`),
    section("State", h("p", { id: "state" }, mark(now.state), ` · revision ${kept.revision} · ${now.id}`), h("div", { class: "row", role: "group", "aria-label": "Commands" }, buttons)),
    section("Stages", table("Stages", ["stage", "devices", "approval", "bake", "horizon", "looks", "started (UTC)", "state"], now.stages.map((stage, place) =>
      [stage.name, devicesOf(stage), stage.approval ? "asked" : "not asked", span(stage.bake_s), span(stage.decide_s ?? stage.bake_s), looksOf(now, place), started(events, stage), placed(now, place)]))),
    now.last ? decision("Last decision", now.last) : null,
    section("History", h("ul", {}, events.toReversed().map(({ event }) => h("li", {},
      h("span", { class: "faint" }, `${time(event.at_s * 1000)} `), mark(event.kind), ` ${event.stage}`,
      event.decision ? h("span", {}, ", ", mark(event.decision.answer)) : "",
      event.actor ? ` by ${event.actor}` : "", event.reason ? `: ${event.reason}` : "",
      event.decision ? h("details", {}, h("summary", {}, `Figures of look ${event.decision.look}`), figures(event.decision)) : null))))];
}

const devicesOf = (stage) => (stage.label ? `label ${stage.label}` : share(stage.share));

function looksOf(now, place) {
  const { looks } = now.stages[place];
  return place === now.stage && now.fractions.length ? `${Math.round(now.fractions.at(-1) * looks)} of ${looks}` : looks;
}

function started(events, stage) {
  const found = events.findLast(({ event }) => event.kind === "stage_started" && event.stage === stage.name);
  return found ? time(found.event.at_s * 1000) : "–";
}

function placed(now, place) {
  if (place < now.promoted) return mark("promoted");
  if (place > now.stage || now.state === "draft") return "to come";
  if (now.state === "staged" && now.awaits_deltas) return mark("awaiting_deltas");
  if (now.state === "staged" && now.stage_start_s === null) return mark("awaiting_approval");
  return mark(now.state === "staged" ? "watched" : now.state);
}

function decision(title, found) {
  return section(title, h("p", {}, mark(found.answer), `: ${found.reason}`),
    h("p", { class: "faint" }, `Look ${found.look} at ${share(found.fraction)} of the stage; ${found.reported} of ${found.canaries} canaries reported, ${found.silent} silent, ${found.controls} controls.`), figures(found));
}

const figures = (found) => table("Gates", ["gate", "class", "canaries", "controls", "effect", "interval", "margin", "p harm (level)", "p within (level)", "says"],
  found.figures.map((each) => [each.gate, each.group, each.canaries, each.controls, change(each.effect), interval(each), share(each.margin),
    tested(each.p_harm, each.level_harm), tested(each.p_within, each.level_within),
    h("span", {}, mark(each.harmed ? "harmed" : each.within ? "within" : "undecided"), each.reason ? ` ${each.reason}` : "")]));

const interval = ({ low, high }) => ((low ?? high ?? null) === null ? "–" : `${change(low)} to\u00a0${change(high)}`);
const tested = (p, level) => ((p ?? null) === null ? "–" : `${figure(p, 2)}\u00a0(${figure(level, 2)})`);
