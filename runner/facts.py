"""What can be said of an experiment before it runs: its graph, its messages, its memory, its trace."""

from typing import Any

from runner.assembly import (
    bytes_per_token_prompt,
    channel_of,
    codebook_of,
    graph_of,
    mixing_for,
    prior_of,
)
from runner.experiment import Experiment
from runner.record import predicted_bytes
from topology.mixing import Mixing
from topology.reach import reach

_LARGEST_GRAPH = 2000  # up to so many tokens diameter and spectrum are computed


def facts_of(experiment: Experiment) -> dict[str, Any]:
    """Sizes that `check` prints; None where a quantity is not computed or does not exist.

    Example:
        >>> facts_of(Experiment())["bits_per_message"]
        27
    """
    prior, mixing, channel = prior_of(experiment), mixing_for(experiment), channel_of(experiment)
    learned = experiment.policy.kind == "learned"
    codes = channel.channels if learned else len(codebook_of(experiment, prior))
    task, per_actor = experiment.task, experiment.run.tokens_per_actor
    messages = task.tokens * experiment.run.rounds * task.prompts
    return {
        "identity": experiment.identity(),
        "tokens": task.tokens,
        **_graph_facts(experiment, mixing),
        "actors": -(-task.tokens // per_actor) if experiment.run.engine == "ray" else 0,
        "codes": codes,
        "bits_per_message": channel.bits_per_message(codes),
        "messages": messages,
        "message_bytes": messages * channel.bits_per_message(codes) // 8,
        "memory_bytes_per_token_prompt": bytes_per_token_prompt(experiment),
        "trace_bytes": predicted_bytes(experiment),
    }


def _graph_facts(experiment: Experiment, mixing: Mixing) -> dict[str, Any]:
    rounds = max(1, experiment.run.rounds)
    facts: dict[str, Any] = {
        "graph": experiment.graph.kind,
        "effective_tokens": round(float(mixing.effective().mean()), 3),
        "effective_tokens_after_rounds": None,
        "degree": None,
        "diameter": None,
        "spectral_gap": None,
        "mixing_time": None,
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
