// The pages that only show: fleets, devices, releases, alerts, audit log.
import { ask, part } from "./api.js";
import { distribution } from "./charts.js";
import { figure, h, mark, section, share, table, time } from "./dom.js";

const link = (text, ...parts) => h("a", { href: `#/${parts.map(part).join("/")}` }, text);

export async function fleets() {
  const [releases, rollouts, alerts] = await Promise.all([ask("releases"), ask("rollouts"), ask("alerts")]);
  const products = [...new Set([...releases.map((each) => each.product), ...rollouts.map((each) => each.rollout.to_release.product)])].sort();
  return [h("h1", {}, "Fleets"), section("Products", table("Products", ["product", "newest release", "newest rollout", "open alerts"],
    products.map((product) => {
      const release = releases.find((each) => each.product === product);
      const rollout = rollouts.find((each) => each.rollout.to_release.product === product)?.rollout;
      const open = alerts.filter((each) => each.product === product && each.closed_ms === null).length;
      return [link(product, "fleets", product), release?.version, rollout ? h("span", {}, link(rollout.id, "rollouts", rollout.id), " ", mark(rollout.state)) : null, open];
    })))];
}

export async function fleet(product) {
  const [points, releases, spending] = await Promise.all([
    ask(`telemetry/${part(product)}`), ask(`releases?product=${part(product)}`), ask(`alerts/${part(product)}`)]);
  const digests = [...new Set(points.map((each) => each.release))];
  const manifests = new Map(await Promise.all(releases.filter((each) => digests.includes(each.digest)).map(async (each) =>
    [each.digest, (await ask(`releases/${part(product)}/${part(each.version)}`)).manifest])));
  const groups = Map.groupBy(points.filter((each) => each.totals.histograms.latency_ms), (each) => JSON.stringify([each.device_class, each.release]));
  const charts = [...groups].sort().map(([key, group]) => {
    const [deviceClass, digest] = JSON.parse(key), manifest = manifests.get(digest);
    const limits = Object.fromEntries(["latency_p50_ms", "latency_p99_ms"].filter((name) => manifest?.budget[name]).map((name) => [name, manifest.budget[name]]));
    return distribution(`${deviceClass}, ${manifest?.version ?? digest.slice(0, 12)}`, group.map((each) => each.totals.histograms.latency_ms), limits);
  });
  return [h("h1", {}, product),
    section("Latency against budget, last hour", ...(charts.length ? charts : [h("p", { class: "faint" }, "No latency has been reported in the last hour.")])),
    section("Error budget", h("p", {}, `Objective ${share(spending.objective)} over the last six hours: ${spending.bad} of ${spending.total} requests without an answer`,
      spending.spent === null ? "; nothing was asked." : `, which burns the budget at ${figure(spending.spent)} times the rate it allows.`),
      table("Burn rates", ["rule", "limit", "long window", "short window", "bad", "of", "says"], spending.burns.map((each) =>
        [each.rule, `${each.factor}x`, figure(each.long_rate), figure(each.short_rate), each.bad, each.total, mark(each.state)])))];
}

export async function devices(after = "") {
  const [found, releases] = await Promise.all([ask(`devices?limit=200&after=${part(after)}`), ask("releases")]);
  const versions = new Map(releases.map((each) => [each.digest, each.version]));
  return [h("h1", {}, "Devices"), section("Devices", table("Devices", ["device", "product", "class", "labels", "runs", "enrolled (UTC)", "last seen (UTC)", "state"], found.map((each) =>
    [each.id, each.product, each.device_class, each.labels.join(", ") || "–", versions.get(each.release) ?? each.release?.slice(0, 12), time(each.enrolled_ms), time(each.seen_ms), each.revoked_ms ? mark("revoked") : "enrolled"])),
    found.length === 200 ? link("Next devices", "devices", found.at(-1).id) : null)];
}

export async function releases() {
  const found = await ask("releases");
  return [h("h1", {}, "Releases"), section("Releases", table("Releases", ["product", "version", "bytes", "published (UTC)", "digest"], found.map((each) =>
    [each.product, link(each.version, "releases", each.product, each.version), each.size_bytes, time(each.created_ms), each.digest.slice(0, 16)])))];
}

export async function release(product, version) {
  const { manifest } = await ask(`releases/${part(product)}/${part(version)}`);
  const evidence = manifest.pipeline ? null : await ask(`releases/${part(product)}/${part(version)}/evidence.json`);
  const limits = Object.entries(manifest.budget).filter(([, value]) => value !== null);
  return [h("h1", {}, `${product} ${version}`),
    section("Budget", table("Budget", ["limit", "value"], limits.map(([name, value]) => [name, figure(value)]))),
    manifest.pipeline ? section("Stages", table("Stages", ["stage", "bundle", "variant", "runs", "mailbox", "where"], manifest.pipeline.stages.map((each) =>
      [each.name, each.bundle.slice(0, 16), each.variant ?? "chosen", each.when ? `${each.when.value} >= ${figure(each.when.at_least)}` : "always", each.mailbox, each.place]))) : null,
    ...(manifest.variants ?? []).map((each) => section(`Variant ${each.name}`,
      h("p", {}, `${each.runtime}, ${each.precision}, ${each.device_class}, ${each.threads} threads: `, mark(each.verdict)),
      table("Figures", ["limit", "required", "found", "margin", "verdict"], each.verdicts.map((line) =>
        [line.limit, figure(line.required), figure(line.found), share(line.margin), mark(line.verdict)])))),
    evidence && section("Evidence", h("details", {}, h("summary", {}, "evidence.json"), h("pre", {}, JSON.stringify(evidence, null, 2))))];
}

export async function alerts() {
  const found = await ask("alerts");
  return [h("h1", {}, "Alerts"), section("Alerts", table("Alerts", ["product", "rule", "state", "opened (UTC)", "closed (UTC)", "long window", "short window"], found.map((each) =>
    [link(each.product, "fleets", each.product), each.burn.rule, mark(each.closed_ms === null ? "open" : "closed"), time(each.opened_ms), time(each.closed_ms), figure(each.burn.long_rate), figure(each.burn.short_rate)])))];
}

export async function audit() {
  const [lines, chain] = await Promise.all([ask("audit?newest=true&limit=200"), ask("audit/chain")]);
  return [h("h1", {}, "Audit log"), section("Audit log",
    h("p", { class: chain.whole ? "good" : "bad" }, chain.whole ? "The chain is whole." : `The chain is broken at line ${chain.broken_at}.`),
    table("Audit log", ["line", "time (UTC)", "who", "did", "to", "detail"], lines.map((each) => [each.sequence, time(each.at_ms), each.actor, each.action, each.subject, each.detail])))];
}
