"""An adaptive agent and the transformer that does the same by construction, on the same prompts."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from agents.policies.adaptive import Adaptive
from agents.policies.learned import Learned
from agents.transformer.compiler import Compiled, compile_policy
from analysis.report.tables import by_depth
from analysis.statistics import paired_difference
from runner.built import Built
from runner.config.studies import of_kind
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.storage.arrays import SUFFIX, write_arrays
from runner.storage.files import new_folder
from runner.studies.base import Findings, Session


def prepare(built: Built) -> Callable[[Session], Findings]:
    """Compile the policy of an experiment into weights of the constrained transformer; nothing is trained.

    Args:
        built: policy `adaptive`, one channel, the complete graph, a binary orthonormal tree. A belief from
            the exact law of fields is replaced by the joint one, which takes them for Gaussian: one number
            of a workspace then holds what a field said.

    Returns:
        What runs agent and weights. Its findings have a frame `rows` (source: agent or compiled, round, risk,
        risk_se), the numbers width, hidden, difference and difference_se (of the risk after the last round,
        paired by prompt); the weights lie in its folder.

    Raises:
        UsageError: naming the key, what was given, what is possible.

    Source: THEORY.md section 8, two systems, one computation.
    """
    if built.experiment.policy.own_example:
        raise UsageError(
            "policy.own_example", True, "false: a workspace has no room for a token's own example"
        )
    if built.experiment.policy.belief == "exact":
        built = built.varied({"policy.belief": "joint", "policy.repeats": "auto"})
    experiment = built.experiment
    if not isinstance(built.policy, Adaptive):
        raise UsageError("policy.kind", experiment.policy.kind, '"adaptive", which is what can be compiled')
    if not built.mixing.is_shared:
        raise UsageError("graph.kind", experiment.graph.kind, '"complete": all tokens must ask the same')
    try:
        compiled = compile_policy(
            built.policy, experiment.task.tokens, experiment.run.rounds, largest=experiment.channel.clip
        )
    except ValueError as failure:
        raise UsageError(
            "policy.kind", experiment.policy.kind, f"a system that can be compiled; {failure}"
        ) from None
    weights = built.varied(of_kind("learned")).with_weights(compiled.learned)
    return partial(_run, built, weights, compiled)


def _run(built: Built, weights: Built, compiled: Compiled, session: Session) -> Findings:
    folder = new_folder(session.out, f"{session.name}-{built.experiment.identity()}")
    learned = compiled.learned
    _write_weights(folder / f"weights{SUFFIX}", learned)
    with session.progress.task("agent and compiled weights", 2) as advance:
        agent = simulate(built, engine=session.engine, out=folder, name="agent")
        advance(1)
        run = simulate(weights, engine=session.engine, out=folder, name="compiled")
    rows = pd.concat(
        [
            pd.DataFrame({"source": source, "round": np.arange(len(found.risk)), "risk": found.risk,
                          "risk_se": found.risk_se})
            for source, found in (("agent", agent), ("compiled", run))
        ],
        ignore_index=True,
    )  # fmt: skip
    gap, error = (float(part[-1]) for part in paired_difference(run.prompt_risk, agent.prompt_risk))
    width = len(learned.start_vector)
    hidden = max(len(layer.update[0].bias) for layer in learned.layers)
    return Findings(
        {"rows": rows},
        f"Compiled into width {width:,} and hidden width {hidden:,}, the agent's risk after the last round "
        f"changes by {gap:+.4f} ± {error:.4f}.",
        folder,
        [],
        {"width": width, "hidden": hidden, "difference": gap, "difference_se": error},
        [by_depth(rows, "risk / E|w|² ± standard error", ["source"], across="round")],
    ).saved()


def _write_weights(path: Path, learned: Learned) -> None:
    """All weights by name, as the transformer has them."""
    arrays = {"start": learned.start_vector, "readout": learned.readout}
    for index, layer in enumerate(learned.layers):
        parts = {"query": layer.query, "emission": layer.emission}
        parts |= {f"update.{step}": part for step, part in enumerate(layer.update)}
        for name, part in parts.items():
            arrays |= {f"layers.{index}.{name}.{kind}": getattr(part, kind) for kind in ("weight", "bias")}
    header = {"channels": learned.channels, "control_variate": learned.control_variate}
    write_arrays(path, header, arrays)
