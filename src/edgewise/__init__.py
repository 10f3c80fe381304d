"""edgewise: write down what a device can afford, get a quantized model that fits, and the proof.

A tour of the loop, in the order in which it happens:

1. `contracts.project`   `edgewise.toml` says the model, the data, the target and the budget;
   `contracts.toml_` reads it and refuses every wrong key, unit and value.
2. `forge.importing`     reads the trained model and normalises its graph.
3. `forge.calibrate`     streams calibration samples into histograms, `forge.ranges` into ranges.
4. `forge.sensitivity`   tells which region loses what when it alone is quantized.
5. `forge.placement`     gives each region a number format, from times measured on the target.
6. `forge.lower`         writes a recipe down as a model that the runtime really fuses.
7. `runtimes`            executes every variant, and fp32, through one protocol.
8. `contracts.budget`    judges the figures: per limit pass, fail or unknown, with the margin.
9. `contracts.run`       is the document of it all, which the report and `--json` show.
10. `forge.verify`       asks whether the variant can be trusted, under the conditions it will meet.
11. `forge.seal`         puts variants, evidence and golden inputs into one signed bundle.
12. `fleet.repository`   publishes it; `fleet.rollouts` moves it over the fleet, stage by stage.
13. `device.update`      takes it into the slot that does not run, tries it, confirms it.
14. `device.runtime`     answers, with an outcome for each inference; `device.governor` changes variants.
15. `device.uplink`      reports; `fleet.gates` decide with it, and `device.capture` tells what to calibrate on next.

Each folder is a place, not a stage: what a workstation needs is in `forge`, what a device needs
in `device`, and what both agree on in `contracts`. Importing this package imports none of them.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
