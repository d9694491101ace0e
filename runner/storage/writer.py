"""A run as a folder: a manifest and Parquet tables, written a round at a time.

Every table is a folder of part files, one for each batch of prompts and round, each put in place when it
is complete: a run that was stopped is readable up to its last complete round. The manifest of a run that
is complete holds the digests of its tables. All tables but `timing` hold the same bits on every engine.
"""

import json
import shutil
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from agents.prior import Prior, draw_latent
from agents.step import MOST_BELIEFS
from agents.task import draw_tokens
from analysis.theory.limits.bayes import ExactPosterior
from analysis.traces.location import Location, Place
from analysis.traces.schema import IN_PARTS, KEYS, TableDigest, group_of, part_name, rounds_of, schema_of
from runner.built import Built
from runner.config.experiment import Experiment
from runner.engines.base import Outcome
from runner.errors import UsageError
from runner.storage.files import check_folder, write_table
from runner.storage.manifest import Batches, sizes_of, write_manifest
from topology.mixing import Mixing
from topology.nodes import Nodes
from topology.partition import blocks

_DRAWN = 4096  # tokens that are drawn at once
SAMPLED_PROMPTS = 16  # prompts that trace = "sampled" keeps of all


def predicted_bytes(experiment: Experiment) -> int:
    """Size of the trace in bytes, before compression."""
    if experiment.run.trace == "none":
        return 0
    rounds, tokens = experiment.run.rounds, experiment.task.tokens
    prompts = np.count_nonzero(traced_prompts(experiment, range(experiment.task.prompts)))
    rows = prompts * (tokens if experiment.trace.positions is None else len(set(experiment.trace.positions)))
    kept = [index for index in range(rounds + 1) if _keeps_round(experiment, index)]
    message = 30 * experiment.channels * len([index for index in kept if index])
    workspace = (30 + 4 * experiment.prior.dim + 5 * experiment.prior.levels + 4 * MOST_BELIEFS) * len(kept)
    return int(rows * (message + workspace) + 22 * (rounds + 1) * experiment.task.prompts)


def check_room(experiment: Experiment, folder: Place, key: str = "out") -> None:
    """Refuse a folder that cannot be written, and a trace that does not fit on its disk.

    Raises:
        UsageError: with the size of the trace and the room there is.
    """
    check_folder(folder, key)
    if isinstance(folder, Location):  # which does not say how much room it has
        return
    needed, free = predicted_bytes(experiment), shutil.disk_usage(folder).free
    if needed > free:
        possible = (
            f"a trace that fits into {free / 2**30:.3g} GiB of free disk; this one takes up to "
            f"{needed / 2**30:.3g} GiB"
        )
        advice = 'Set run.trace = "sampled", or name another disk with --out'
        raise UsageError("run.trace", experiment.run.trace, possible, advice)


def traced_prompts(experiment: Experiment, prompts: range) -> Bool[np.ndarray, " B"]:
    """Which prompts of a batch have their messages and workspaces stored."""
    indices, named = np.array(prompts), experiment.trace.prompts
    if experiment.run.trace in ("none", "rounds"):
        return np.zeros(len(prompts), dtype=bool)
    if named is not None:
        return np.isin(indices, named)
    return indices < (SAMPLED_PROMPTS if experiment.run.trace == "sampled" else prompts.stop)


def _keeps_round(experiment: Experiment, index: int) -> bool:
    rounds, every = experiment.trace.rounds, experiment.trace.every
    return index % every == 0 if rounds is None else index in rounds


class TraceWriter:
    """Writes the tables of one run.

    Args:
        folder: where the run is stored.
        built: what is run; its trace level says what is stored.
        engine: name of the engine that plays the rounds.
        batches: the prompts, batch by batch.
    """

    def __init__(self, folder: Place, built: Built, engine: str, batches: Batches) -> None:
        self.folder = folder
        self._built, self._engine, self._batches = built, engine, batches
        self._experiment, self._channel = built.experiment, built.channel
        self._bits = built.channel.bits_per_message(built.policy.codes) // built.channel.channels
        self._digests: dict[str, TableDigest] = {}
        self._sizes = sizes_of(built)
        self.manifest("running")
        if built.experiment.run.trace == "none":
            return
        self._write("atoms", folder / "atoms.parquet", _atoms(built.prior))
        if not built.mixing.is_shared:
            self._write("graph", folder / "graph.parquet", _graph(built.mixing))
        if built.nodes is not None:
            self._write("nodes", folder / "nodes.parquet", _nodes(built.nodes))

    def manifest(self, status: str) -> None:
        """State what was run, and how far it came."""
        write_manifest(self.folder, self._built, self._batches, self._engine, status, self._digests)

    def handed_in(self) -> list[str]:
        """What was handed in as objects: without them the run cannot be resumed."""
        return [*self._built.handed_in, *(["graph"] if self._built.own_graph else [])]

    def round(self, batch: int, prompts: range, outcome: Outcome, risk: np.ndarray) -> None:
        """Store one round of one batch of prompts; `risk` is its mean over positions [B]."""
        if self._experiment.run.trace == "none":
            return
        tables = {
            "prompts": {
                "round": np.full(len(prompts), outcome.round),
                "prompt": np.array(prompts),
                "risk": risk,
                "clipped": outcome.clipped.sum(axis=(0, 1)),
            }
        }
        if self.stores(prompts):
            kept = self._kept(prompts, outcome.round)
            if outcome.sent is not None:
                tables["messages"] = self._messages(outcome, kept, prompts.start)
            if outcome.report.detail is not None:
                tables["workspaces"] = self._workspaces(outcome, kept, prompts.start)
            if outcome.round == 0:
                tables["truths"] = self._truths(prompts)
        for name, columns in tables.items():
            self._write(name, self.folder / name / part_name(batch, outcome.round), columns)

    def stores(self, prompts: range) -> bool:
        """Whether messages and workspaces of a batch are stored.

        Where prompts are named, a batch without any has an empty part: readers find none missing.
        """
        named = self._experiment.trace.prompts is not None
        some = self._experiment.run.trace in ("sampled", "full")
        return some and (named or bool(traced_prompts(self._experiment, prompts).any()))

    def finish(
        self,
        risk: np.ndarray,
        risk_se: np.ndarray,
        clipped: np.ndarray,
        seconds: np.ndarray,
        scalars: np.ndarray,
        messages: int,
    ) -> None:
        """Store the table of rounds, and the clock apart from it; mark the run as complete.

        Args:
            risk: by round, as all that follows [L + 1].
            risk_se: its standard error.
            clipped: scalars that did not fit.
            seconds: wall-clock time.
            scalars: scalars sent.
            messages: sent in each round but round 0.
        """
        count = len(risk)
        if self._experiment.run.trace != "none":
            rounds = {
                "round": np.arange(count),
                "source": ["agents"] * count,
                "risk": risk,
                "risk_se": risk_se,
                "bits": scalars * self._bits,
                "messages": np.where(np.arange(count) > 0, messages, 0),
                "clipped": clipped,
            }
            clock = {"round": np.arange(count), "seconds": seconds}
            for name, columns in (("rounds", rounds), ("timing", clock)):
                self._write(name, self.folder / f"{name}.parquet", columns)
        self.manifest("complete")

    def restore(self, batches: int) -> None:
        """Digest what an earlier process wrote of the first batches, in the order in which it did."""
        for table in IN_PARTS:
            for batch, index in product(range(batches), range(self._experiment.run.rounds + 1)):
                if index not in rounds_of(table, self._experiment.run.rounds):
                    continue
                path = self.folder / table / part_name(batch, index)
                if path.exists():
                    self._digests.setdefault(table, TableDigest()).add(path)

    def _write(self, name: str, path: Place, columns: dict[str, Any]) -> None:
        schema, kept = schema_of(name, self._sizes), self._experiment.trace.columns
        if kept is not None and name in KEYS:  # the others are there without a value, which takes no room
            rows = len(columns["round"])
            dropped = {column for column in columns if group_of(column) not in (*KEYS[name], *kept)}
            columns = columns | {column: pa.nulls(rows, schema.field(column).type) for column in dropped}
        write_table(path, pa.table(columns, schema=schema))
        self._digests.setdefault(name, TableDigest()).add(path)

    def _kept(self, prompts: range, index: int) -> Bool[np.ndarray, "N B"]:
        """Which messages and workspaces of a round are stored."""
        kept = np.zeros((self._built.mixing.tokens, len(prompts)), dtype=bool)
        if _keeps_round(self._experiment, index):
            positions = self._experiment.trace.positions
            kept[slice(None) if positions is None else list(positions)] = traced_prompts(
                self._experiment, prompts
            )
        return kept

    def _messages(self, outcome: Outcome, kept: Bool[np.ndarray, "N B"], first: int) -> dict[str, Any]:
        sent = outcome.sent
        assert sent is not None
        spoken = np.broadcast_to(kept[:, None], sent.codes.shape)
        if sent.spoken is not None:
            spoken = spoken & sent.spoken
        sender, channel, prompt = np.nonzero(spoken)
        wire = sent.wire[spoken].astype(np.int64)
        return {
            "round": np.full(len(sender), outcome.round),
            "sender": sender,
            "prompt": prompt + first,
            "channel": channel,
            "code": sent.codes[spoken],
            "value": wire * self._channel.step - self._channel.clip,
            "wire": wire,
            "clipped": outcome.clipped[spoken],
            "bits": np.full(len(sender), self._bits),
        }

    def _workspaces(self, outcome: Outcome, kept: Bool[np.ndarray, "N B"], first: int) -> dict[str, Any]:
        detail, report = outcome.report.detail, outcome.report
        assert detail is not None
        position, prompt = np.nonzero(kept)
        effective = report.effective[kept] if outcome.round else np.zeros(len(position))
        belief = detail.belief  # a policy without one has no columns of it, the table has
        if not belief.shape[1]:
            belief = np.full((len(belief), self._sizes["beliefs"], belief.shape[2]), np.nan)
        return {
            "round": np.full(len(position), outcome.round),
            "position": position,
            "prompt": prompt + first,
            "error": report.error[kept],
            "effective": effective.astype(np.float32),
            "claimed": _known(detail.claimed[kept]),
            **_numbered(
                "estimate", [part[kept].astype(np.float32) for part in np.moveaxis(detail.estimate, 1, 0)]
            ),
            **_numbered("correct", [part[kept] for part in np.moveaxis(detail.correct, 1, 0)]),
            **_numbered("entropy", [_known(part[kept]) for part in np.moveaxis(detail.entropy, 1, 0)]),
            **_numbered("belief", [_known(part[kept]) for part in np.moveaxis(belief, 1, 0)], 0),
        }

    def _truths(self, prompts: range) -> dict[str, Any]:
        """The true w of the traced prompts, and what all examples together say of it."""
        built, traced = self._built, np.flatnonzero(traced_prompts(self._experiment, prompts))
        exact = np.empty((self._sizes["beliefs"], len(traced)))
        latent = draw_latent(built.prior, built.system.seed, prompts)
        if self._sizes["beliefs"] and len(traced):
            posterior = ExactPosterior(built.prior, built.system.label_noise, len(prompts))
            for positions in blocks(built.mixing.tokens, _DRAWN):
                drawn = draw_tokens(latent, built.system.label_noise, built.system.seed, prompts, positions)
                posterior.add(drawn.inputs, drawn.labels)
            exact = posterior.probabilities()[:, traced]
        return {
            "prompt": np.array(prompts)[traced],
            "atom": latent.atom[traced],
            **_numbered("vector", [*latent.vector[:, traced]]),
            **_numbered("exact", [part.astype(np.float32) for part in exact], 0),
        }


def _numbered(name: str, parts: Sequence[Any], first: int = 1) -> dict[str, Any]:
    return {f"{name}_{index}": part for index, part in enumerate(parts, first)}


def _known(values: np.ndarray) -> pa.Array:
    """Numbers in single precision, null where there are none."""
    return pa.array(values.astype(np.float32), from_pandas=True)


def _atoms(prior: Prior) -> dict[str, Any]:
    """The atoms of the prior, and which node each passes at each level."""
    return {
        "atom": np.arange(len(prior.atoms)),
        "mass": prior.weights,
        **_numbered("vector", [*prior.atoms.T]),
        **_numbered("branch", [*prior.branches.T]),
    }


def _graph(mixing: Mixing) -> dict[str, Any]:
    """Who hears whom with which weight; a token hears itself too."""
    weights = mixing.weights.tocoo()
    return {"receiver": weights.row, "sender": weights.col, "weight": weights.data}


def _nodes(nodes: Nodes) -> dict[str, Any]:
    """Who stands at which position."""
    attributes = [json.dumps(attributes) for attributes in nodes.attributes]
    return {"position": np.arange(len(nodes.names)), "name": nodes.names, "attributes": attributes}
