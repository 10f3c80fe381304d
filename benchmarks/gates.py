"""How often the gate errs, and how often it catches what it should: a seeded simulation through the product's own code.

    nice -n 19 python benchmarks/gates.py [--scale 1.0] [--seed 1] [--markdown FILE]

Every repetition goes through `edgewise.fleet.gates.decide`, look after look, until it answers. The model of the fleet
is in `gate_fleet.py`, the rules it is set beside in `gate_rivals.py`; they see the same requests.
"""

import argparse
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.rollout import Answer, GatePolicy, MetricGate, RateGate, Stage, Statistic
from edgewise.fleet.evidence import DeviceEvidence, Window, table
from edgewise.fleet.gates import decide
from edgewise.numerics.statistics import share_interval
from gate_fleet import CLASS_MS, LOOKS, REQUESTS, Fleet, Scenario, simulate, tables
from gate_rivals import fixed_threshold, kayenta, pooled_mann_whitney

POLICY = GatePolicy(
    metrics=(
        MetricGate(metric="latency_ms", statistic=Statistic.P50, margin=0.10),
        MetricGate(metric="latency_ms", statistic=Statistic.P99, margin=0.10),
        MetricGate(metric="energy_mj", statistic=Statistic.MEAN, margin=0.10),
    ),
    rates=(RateGate(events="crashes", trials="requests", margin=0.005),),
    report_s=7200,
)
STAGE = Stage(name="canary", share=0.2, bake_s=43_200, looks=LOOKS, minimum_devices=3)
FRACTIONS = tuple(look / LOOKS for look in range(1, LOOKS + 1))
RIVALS = {"p95 threshold": fixed_threshold, "pooled Mann-Whitney": pooled_mann_whitney, "Kayenta": kayenta}

SCENARIOS = (
    Scenario("harmless, 10 canaries", repetitions=600),
    Scenario("harmless, 4 canaries", canaries=4, repetitions=200),
    Scenario("harmless on average, 3 % uneven", uneven=0.03, repetitions=200),
    Scenario("latency +15 %, 10 canaries", slower=1.15, repetitions=200),
    Scenario("latency +15 %, 4 canaries", canaries=4, slower=1.15, repetitions=200),
    Scenario("latency +5 %", slower=1.05, repetitions=100),
    Scenario("tail only: obstacles x 1.5", tail=1.5),
    Scenario("energy +15 %", energy=1.15),
    Scenario("crashes 2 % for 0.1 %", crash_rate=0.02),
    Scenario("crashes 0.5 % for 0.1 %", crash_rate=0.005),
    Scenario("harmless, 3 of 10 canaries silent", silent=0.3, missing=True),
    Scenario("harmless, all canaries silent", silent=1.0, missing=True),
    Scenario("harmless, 1 of 10 without energy", without_energy=0.1, missing=True),
    Scenario("latency +15 %, 3 of 10 silent", slower=1.15, silent=0.3, missing=True),
)


def verdict(scenario: Scenario, fleet: Fleet) -> tuple[Answer, int]:
    """Return the product's answer, and the look at which it came; HOLD where the last look leaves it open."""
    for look, found in enumerate(tables(scenario, fleet, POLICY), start=1):
        answer = decide(POLICY, STAGE, found, FRACTIONS[:look]).answer
        if answer is not Answer.HOLD:
            return answer, look
    return Answer.HOLD, LOOKS


def check(seed: int, devices: int = 4) -> None:
    """Raise unless the columns of a few devices are those the product reads from real histograms."""
    scenario = Scenario("check", canaries=2, controls=devices - 2, slower=1.1)
    fleet = simulate(scenario, np.random.default_rng(seed))
    for look in (1, LOOKS):
        rows = [
            DeviceEvidence(
                device=f"d{n}",
                device_class="x",
                canary=n < 2,
                since_s=0.0,
                last_report_s=0.0,
                baseline=_window(fleet.before_ms[n], fleet.before_mj[n], fleet.crashes[n]),
                current=_window(fleet.after_ms[n, :look], fleet.after_mj[n, :look], fleet.crashes[n, :look]),
            )
            for n in range(devices)
        ]
        real, ours = table(POLICY, rows, now_s=0.0), tables(scenario, fleet, POLICY)[look - 1]
        for name in real.changes:
            np.testing.assert_allclose(ours.changes[name], real.changes[name], rtol=0, atol=1e-9)
        for name in real.events:
            np.testing.assert_array_equal(ours.events[name], real.events[name])
            np.testing.assert_array_equal(ours.trials[name], real.trials[name])


def _window(ms: np.ndarray, mj: np.ndarray, crashes: np.ndarray) -> Window:
    return Window(
        histograms={"latency_ms": histogram_of(ms.ravel().tolist()), "energy_mj": histogram_of(mj.ravel().tolist())},
        counters={"requests": ms.size, "crashes": int(crashes.sum())},
    )


def run(scenario: Scenario, seed: int, repetitions: int) -> tuple[str, ...]:
    """Return the scenario's row: the product's answers with 95 % intervals, then how often others roll back."""
    answers: Counter[Answer] = Counter()
    others: Counter[str] = Counter()
    looks = []
    for repetition in range(repetitions):
        fleet = simulate(scenario, np.random.default_rng((seed, repetition)))
        answer, look = verdict(scenario, fleet)
        answers[answer] += 1
        if answer is Answer.ROLLBACK:
            looks.append(look)
        if not scenario.missing:
            usual = fleet.after_ms / CLASS_MS[fleet.of][:, None, None]
            canaries, controls = usual[: scenario.canaries], usual[scenario.canaries :]
            others.update(name for name, rule in RIVALS.items() if rule(canaries, controls))
    return (
        scenario.name,
        str(repetitions),
        *(_share(answers[each], repetitions) for each in (Answer.ROLLBACK, Answer.PROMOTE, Answer.HOLD)),
        f"{np.median(looks):.0f}" if looks else "-",
        *("-" if scenario.missing else f"{others[name] / repetitions:.0%}" for name in RIVALS),
    )


def _share(count: int, trials: int) -> str:
    bounds = share_interval(count, trials)
    return f"{count / trials:.1%} ({bounds.low:.1%} to {bounds.high:.1%})"


def main() -> None:
    """Print the table; write it as Markdown where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times the repetitions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    check(options.seed)
    print(f"{LOOKS} looks of {REQUESTS} requests a device; columns checked against real histograms")
    head = ("release", "runs", "ROLLBACK", "PROMOTE", "HOLD", "median look", *RIVALS)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print(lines[0], lines[1], sep="\n")
    start = time.perf_counter()
    chosen = [each for each in SCENARIOS if options.only in each.name]
    repetitions = [max(round(each.repetitions * options.scale), 10) for each in chosen]
    with ProcessPoolExecutor(options.processes) as pool:
        for row in pool.map(run, chosen, [options.seed] * len(chosen), repetitions):
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
