"""What can be said of an experiment before it runs: its graph, its messages, its memory, its trace."""

from typing import Any

from runner.assembly import (
    channel_of,
    codebook_of,
    graph_of,
    mixing_for,
    prior_of,
    turns_of,
)
from runner.experiment import Experiment
from runner.footprint import bytes_per_token_prompt
from runner.record import predicted_bytes
from topology.metrics import light_cones, reach, spectrum
from topology.mixing import Mixing

_LARGEST_GRAPH = 2000  # up to so many tokens diameter and spectrum are computed


def facts_of(experiment: Experiment) -> dict[str, Any]:
    """Sizes that `check` prints; None where a quantity is not computed or does not exist.

    Example:
        >>> facts_of(Experiment())["bits_per_message"]
        27
    """
    prior, mixing, channel = prior_of(experiment), mixing_for(experiment), channel_of(experiment)
    own = experiment.policy.kind in ("learned", "gradient", "flood")  # a code for each channel
    codes = channel.channels if own else len(codebook_of(experiment, prior))
    task, per_actor = experiment.task, experiment.run.tokens_per_actor
    bits = channel.bits_per_message(codes)
    messages = task.tokens * experiment.run.rounds * task.prompts
    total = messages * bits
    if experiment.policy.kind == "flood":  # silent about the tokens that its sender has not heard of
        known = light_cones(graph_of(experiment), experiment.run.rounds)[: experiment.run.rounds].sum()
        total = int(known) * task.prompts * bits // task.tokens
    return {
        "identity": experiment.identity(),
        "tokens": task.tokens,
        **_graph_facts(experiment, mixing),
        "actors": -(-task.tokens // per_actor) if experiment.run.engine == "ray" else 0,
        "codes": codes,
        "bits_per_message": bits,
        "messages": messages,
        "message_bytes": total // 8,
        "memory_bytes_per_token_prompt": bytes_per_token_prompt(experiment),
        "trace_bytes": predicted_bytes(experiment),
    }


def mixing_time(experiment: Experiment) -> float | None:
    """Mixing time of the graph, rounds; None if it is infinite, or the graph too large to tell.

    Example:
        >>> mixing_time(Experiment())
        0.0
    """
    mixing = mixing_for(experiment)
    if mixing.tokens > _LARGEST_GRAPH and not mixing.is_shared:
        return None
    time = spectrum(mixing)[1]
    return time if time < float("inf") else None


def _graph_facts(experiment: Experiment, mixing: Mixing) -> dict[str, Any]:
    rounds = max(1, experiment.run.rounds)
    gossip = experiment.policy.kind == "gossip"
    facts: dict[str, Any] = {
        "graph": experiment.graph.kind,
        "effective_tokens": round(float(mixing.effective().mean()), 3),
        "effective_tokens_after_rounds": None,
        "degree": None,
        "diameter": None,
        "spectral_gap": None,
        "mixing_time": None,
        "rounds_per_scale": list(turns_of(experiment, mixing)) if gossip else None,
    }
    if mixing.tokens <= _LARGEST_GRAPH:
        graph = graph_of(experiment)
        found = reach(graph, mixing)
        facts |= {
            "effective_tokens_after_rounds": round(float(mixing.effective(rounds).mean()), 3),
            "degree": round(graph.number_of_edges() / mixing.tokens, 3),
            "diameter": found.diameter,
            "spectral_gap": round(found.gap, 6),
            "mixing_time": round(found.mixing_time, 3) if found.mixing_time < float("inf") else None,
        }
    return facts
