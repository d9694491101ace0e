"""What can be said of an experiment before it runs: its graph, its messages, its memory, its trace."""

from pathlib import Path
from typing import Any

from analysis.plots.graph import graph_figure
from runner.built import Built
from runner.errors import UsageError
from runner.footprint import bytes_per_token_prompt
from runner.storage.files import new_folder, write_figure
from runner.storage.writer import predicted_bytes
from topology.metrics import light_cones, reach

_LARGEST_GRAPH = 2000  # up to so many tokens diameter and spectrum are computed


def facts_of(built: Built) -> dict[str, Any]:
    """Sizes that `check` prints; None where a quantity is not computed or does not exist.

    Example:
        >>> from runner import Experiment, build
        >>> facts_of(build(Experiment()))["bits_per_message"]
        27
    """
    experiment, channel = built.experiment, built.channel
    codes = channel.channels if built.codebook is None else len(built.codebook)
    task, per_actor = experiment.task, experiment.run.tokens_per_actor
    bits = channel.bits_per_message(codes)
    messages = task.tokens * experiment.run.rounds * task.prompts
    total = messages * bits
    if built.entry.theory == "light cone":  # silent about the tokens that its sender has not heard of
        known = light_cones(built.graph, experiment.run.rounds)[: experiment.run.rounds].sum()
        total = int(known) * task.prompts * bits // task.tokens
    return {
        "identity": experiment.identity(),
        "tokens": task.tokens,
        **_graph_facts(built),
        **_plan_facts(built),
        "actors": -(-task.tokens // per_actor) if experiment.run.engine == "ray" else 0,
        "codes": codes,
        "bits_per_message": bits,
        "messages": messages,
        "message_bytes": total // 8,
        "memory_bytes_per_token_prompt": bytes_per_token_prompt(experiment),
        "trace_bytes": predicted_bytes(experiment),
    }


def _graph_facts(built: Built) -> dict[str, Any]:
    mixing, rounds = built.mixing, max(1, built.experiment.run.rounds)
    facts: dict[str, Any] = {
        "graph": built.experiment.graph.kind,
        "effective_tokens": round(float(mixing.effective().mean()), 3),
        "effective_tokens_after_rounds": None,
        "degree": None,
        "diameter": None,
        "spectral_gap": None,
        "mixing_time": None,
        "rounds_per_scale": list(built.turns) if built.entry.theory == "averaging" else None,
    }
    if mixing.tokens <= _LARGEST_GRAPH:
        found = reach(built.graph, mixing)
        facts |= {
            "effective_tokens_after_rounds": round(float(mixing.effective(rounds).mean()), 3),
            "degree": round(built.graph.number_of_edges() / mixing.tokens, 3),
            "diameter": found.diameter,
            "spectral_gap": round(found.gap, 6),
            "mixing_time": round(found.mixing_time, 3) if found.mixing_time < float("inf") else None,
        }
    return facts


def _plan_facts(built: Built) -> dict[str, Any]:
    """What theory settles for a belief: how it asks, and what a repeated answer is worth in each round."""
    believes, plan = built.entry.believes, built.plan
    weighed = believes and not plan.grouped and plan.repeats is not None
    apart = None if plan.disagreement is None else plan.disagreement.mean(axis=1)
    return {
        "question_order": plan.order if "level" in built.entry.orders else None,
        "answers_to_one_code": "jointly" if believes and plan.grouped else None,
        "weight_of_repeated_answers": list(plan.repeats or ()) if weighed else None,
        "disagreement": None if apart is None else apart.round(4).tolist(),
    }


def draw_graph(built: Built, out: Path) -> Path:
    """Draw who hears whom, coloured by the effective number of tokens after L rounds of averaging.

    Args:
        built: its graph and its rounds.
        out: folder below which a folder for the picture is made.

    Raises:
        UsageError: if there are too many tokens to be seen.
    """
    section, mixing, rounds = built.experiment.graph, built.mixing, max(1, built.experiment.run.rounds)
    caption = f"{section.kind.replace('_', ' ')}, N = {mixing.tokens}, {section.mixing} weights; "
    caption += f"colour: N_eff after {rounds} round{'s' if rounds > 1 else ''} of averaging"
    try:
        figure = graph_figure(built.graph, mixing, caption, rounds)
    except ValueError as failure:
        raise UsageError("--figure", mixing.tokens, str(failure)) from None
    return write_figure(figure, new_folder(out, f"graph-{built.experiment.identity()}"), "graph")
