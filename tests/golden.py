"""Experiments whose every bit was recorded: `python -m tests.golden` records them anew.

A change that moves a bit here changes what users get. If it was meant, say why in the commit that records
the new values.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agents.channel import Channel
from agents.policies.learned import Affine, Layer, Learned
from agents.prior import tree
from agents.transformer.model import Architecture
from analysis.theory.predict import predict
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.base import Engine
from runner.engines.local import LocalEngine
from runner.simulation.simulate import simulate
from runner.training.baselines import BaselineJob, Design, train_baseline
from runner.training.job import TRAINING_VERSION, Job, Recipe
from tests.trainings import train_job

RECORD = Path(__file__).parent / "golden.json"
TABLES = ("messages", "workspaces", "prompts", "rounds", "graph", "nodes", "truths", "atoms")
SAMPLES = 300  # of state evolution
_SMALL: dict[str, object] = {
    "policy.belief": "joint",
    "task.tokens": 12,
    "task.prompts": 14,
    "channel.noise": 0.5,
    "channel.bits": 12,
    "run.rounds": 3,
    "run.trace": "full",
    "run.batch": 9,
    "graph.degree": 4,
}
_EXACT: dict[str, object] = {"policy.belief": "exact"}
CASES: dict[str, dict[str, object]] = {
    "tree, adaptive, complete": {},
    "tree, adaptive without control, coarse channel": {
        "policy.control_variate": False,
        "channel.bits": 3,
        "channel.clip": 1.5,
    },
    "tree, static codes, complete": {"policy.kind": "static"},
    "tree, static pooled, grid": {"policy.kind": "static", "policy.order": "pooled", "graph.kind": "grid"},
    "matched Gaussian, adaptive, two channels": {"prior.kind": "matched_gaussian", "channel.channels": 2},
    "Gaussian, adaptive, ring": {"prior.kind": "gaussian", "prior.dim": 4, "graph.kind": "ring"},
    "random tree with jitter, adaptive, random regular, Metropolis": {
        "prior.levels": 2,
        "prior.branching": 3,
        "prior.dim": 5,
        "prior.directions": "random",
        "prior.jitter": 0.2,
        "graph.kind": "random_regular",
        "graph.mixing": "metropolis",
    },
    "tree, adaptive, causal, rounds independent": {"graph.kind": "causal", "policy.belief": "independent"},
    "tree, adaptive, causal window": {"graph.kind": "causal", "graph.window": 5, "channel.noise": 0.0},
    "tree, gossip of two rounds, ring": {
        "policy.kind": "gossip",
        "policy.rounds_per_scale": 2,
        "graph.kind": "ring",
        "run.rounds": 6,
    },
    "tree, gossip as theory plans it, small world": {
        "policy.kind": "gossip",
        "graph.kind": "small_world",
        "run.rounds": 6,
    },
    "tree, gradient, star": {"policy.kind": "gradient", "graph.kind": "star"},
    "Gaussian, flood, barbell": {"prior.kind": "gaussian", "policy.kind": "flood", "graph.kind": "barbell"},
    "tree, learned, complete": {"policy.kind": "learned"},
    "tree, learned, tree graph": {"policy.kind": "learned", "graph.kind": "tree"},
    "tree, adaptive, Erdos-Renyi, all in one batch": {"graph.kind": "erdos_renyi", "run.batch": 14},
    "tree, adaptive, path, sampled": {"graph.kind": "path", "run.trace": "sampled", "task.prompts": 20},
    "tree, adaptive, a graph handed in": {"task.tokens": 34},
    "tree, adaptive, complete, exact law": {**_EXACT, "run.rounds": 5},
    "tree, adaptive, causal, exact law": {**_EXACT, "graph.kind": "causal", "run.rounds": 5},
    "tree, adaptive level by level, ring, exact law, own example": {
        **_EXACT,
        "graph.kind": "ring",
        "policy.order": "level",
        "policy.own_example": True,
        "policy.repeats": 0.5,
        "run.rounds": 5,
    },
    "tree, static codes, random regular, exact law": {
        **_EXACT,
        "policy.kind": "static",
        "graph.kind": "random_regular",
    },
    "tree, gossip of two rounds, grid, exact law": {
        **_EXACT,
        "policy.kind": "gossip",
        "policy.rounds_per_scale": 2,
        "graph.kind": "grid",
        "run.rounds": 5,
    },
}
_STEPS = 30
_JOB = Job(
    tree(2, 2, 0.8, 3),
    0.1,
    Channel(1, 16, 8.0, 0.5),
    np.full((1, 8), 1 / 8),
    Architecture(dim=3, layers=2, width=16, hidden=32),
    Recipe(steps=_STEPS, batch=32, warmup=5, sampling="statistics"),
)
_CAUSAL = np.tri(8) / np.tri(8).sum(axis=1, keepdims=True)
TRAININGS: dict[str, Job] = {
    "statistics": _JOB,
    "tokens, causal": _JOB._replace(mixing=_CAUSAL, recipe=replace(_JOB.recipe, sampling="tokens")),
    "looped": _JOB._replace(architecture=replace(_JOB.architecture, looped=True)),
    "linear, constant queries": _JOB._replace(
        architecture=replace(_JOB.architecture, feedforward=False, adaptive_queries=False)
    ),
}
UNBOUNDED: dict[str, BaselineJob] = {
    kind: BaselineJob(tree(2, 2, 0.8, 3), 0.1, 8, None, Design(kind, 2, width, heads, steps=_STEPS, batch=16))
    for kind, width, heads in (("softmax", 16, 2), ("masked softmax", 16, 2), ("linear self-attention", 1, 1))
}
HANDED_IN: dict[str, Callable[[], "nx.Graph[Any]"]] = {
    "tree, adaptive, a graph handed in": nx.karate_club_graph
}


def experiment_of(case: str) -> Experiment:
    """The experiment of a case."""
    return Experiment().with_values({**_SMALL, **CASES[case]})


def weights_of(experiment: Experiment) -> Learned | None:
    """Weights of a learned policy, the same on every machine; None for another policy."""
    if experiment.policy.kind != "learned":
        return None
    generator = np.random.default_rng(5)
    width, hidden, dim, heads = 6, 8, experiment.prior.dim, experiment.channel.channels

    def affine(rows: int, columns: int) -> Affine:
        return Affine(generator.uniform(-0.5, 0.5, (rows, columns)), generator.uniform(-0.5, 0.5, rows))

    layers = tuple(
        Layer(
            affine(heads * dim, width),
            affine(heads, width),
            (affine(hidden, width + heads), affine(width, hidden)),
        )
        for _ in range(experiment.run.rounds)
    )
    readout = generator.uniform(-0.5, 0.5, (dim, width))
    return Learned(generator.uniform(-0.5, 0.5, width), layers, readout, heads, True)


def played(case: str, engine: Engine) -> dict[str, Any]:
    """Risk by round, and a digest of each table, of one case on one engine."""
    experiment = experiment_of(case)
    graph = HANDED_IN[case]() if case in HANDED_IN else None
    with tempfile.TemporaryDirectory() as out:
        run = simulate(experiment, engine=engine, out=out, graph=graph, learned=weights_of(experiment))
        assert run.folder is not None
        tables = {name: digest for name in TABLES if (digest := _digest(run.folder, name))}
    return {"risk": run.risk.tolist(), "risk_se": run.risk_se.tolist(), "tables": tables}


def predicted(case: str) -> list[float] | None:
    """Risk by round that theory predicts; None where it has no prediction."""
    found = predict(build(experiment_of(case)).scenario, SAMPLES)
    return None if found is None else found.risk.tolist()


def losses() -> dict[str, float]:
    """Loss over the steps of short trainings, by the name of each."""
    found = {name: train_job(job, device="cpu").losses[-1][1] for name, job in TRAININGS.items()}
    for name, job in UNBOUNDED.items():
        found[name] = train_baseline(job, device="cpu").losses[-1][1]
    return found


def instructions() -> str:
    """Hash of what this processor can do, as numpy finds it: other instructions may round otherwise."""
    features: Mapping[str, bool] = np._core._multiarray_umath.__cpu_features__
    names = sorted(name for name, found in features.items() if found)
    return hashlib.blake2b(" ".join(names).encode(), digest_size=8).hexdigest()


def _digest(folder: Path, name: str) -> str | None:
    """Hash of a table's columns, whatever files they lie in; None if there is no such table."""
    files = sorted((folder / name).glob("*.parquet")) or list(folder.glob(f"{name}.parquet"))
    if not files:
        return None
    table = pa.concat_tables([pq.read_table(path) for path in files])
    digest = hashlib.blake2b(digest_size=12)
    for column in table.column_names:
        values = table[column].combine_chunks()
        digest.update(column.encode())
        if pa.types.is_list(values.type):
            digest.update(values.offsets.to_numpy().tobytes())
            values = values.flatten()
        if pa.types.is_string(values.type):
            digest.update(repr(values.to_pylist()).encode())
            continue
        digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).tobytes())
    return digest.hexdigest()


def main() -> None:
    """Record all cases."""
    record = {
        "instructions": instructions(),
        "cases": {case: {**played(case, LocalEngine()), "theory": predicted(case)} for case in CASES},
        "training version": TRAINING_VERSION,
        "losses": losses(),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
