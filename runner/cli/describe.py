"""What can be said of an experiment before it runs: its graph, its messages, its memory, its trace."""

from pathlib import Path
from typing import Any, Literal

from analysis.plots.graph import graph_figure
from analysis.resources import available_cores, available_memory, machine
from runner.built import Built
from runner.errors import UsageError
from runner.footprint import bytes_per_token_prompt
from runner.storage.files import new_folder, write_figure
from runner.storage.writer import predicted_bytes
from topology.metrics import MOST_COMPUTED, Reach, light_cones, reach


def facts_of(built: Built) -> dict[str, Any]:
    """Sizes that `check` prints; None where a quantity does not exist, or for a reason told in `not_given`.

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
    cores, memory = machine()
    return {
        "identity": experiment.identity(),
        "tokens": task.tokens,
        **_graph_facts(built),
        **_plan_facts(built),
        "actors": _actors(task.tokens, per_actor) if experiment.run.engine == "ray" else 0,
        "codes": codes,
        "bits_per_message": bits,
        "messages": messages,
        "message_bytes": total // 8,
        "memory_bytes_per_token_prompt": bytes_per_token_prompt(experiment),
        "trace_bytes": predicted_bytes(experiment),
        "cores_available": available_cores(),
        "cores_of_the_machine": cores,
        "memory_bytes_available": available_memory(),
        "memory_bytes_of_the_machine": memory,
    }


def _actors(tokens: int, per_actor: int | Literal["auto"]) -> int:
    """Actors that a run would take; of a cluster that is not joined yet, the cores are taken to be ours."""
    return min(tokens, available_cores()) if per_actor == "auto" else -(-tokens // per_actor)


def _graph_facts(built: Built) -> dict[str, Any]:
    mixing, rounds = built.mixing, max(1, built.experiment.run.rounds)
    small, found = mixing.tokens <= MOST_COMPUTED, built.closed_reach
    if found is None and small:
        found = reach(built.graph, mixing)
    after = mixing.effective(rounds).mean() if small or mixing.is_shared else None
    facts = {
        "graph": _graph_name(built),
        "effective_tokens": round(float(mixing.effective().mean()), 3),
        "effective_tokens_after_rounds": None if after is None else round(float(after), 3),
        "degree": round(mixing.degree, 3),
        **dict.fromkeys(("diameter", "spectral_gap", "mixing_time")),
        **(_reach_facts(found) if found else {}),
    }
    told = {
        "diameter": "infinite: some token never hears some other",
        "mixing_time": "infinite: some deviation from the mean never shrinks",
    } if found else {}  # fmt: skip
    missing = [key for key, value in facts.items() if value is None]
    return facts | {
        "not_given": {key: told.get(key, f"not computed above N = {MOST_COMPUTED:,}") for key in missing},
        "rounds_per_scale": list(built.turns) if built.entry.theory == "averaging" else None,
    }


def _reach_facts(found: Reach) -> dict[str, Any]:
    return {
        "diameter": found.diameter,
        "spectral_gap": float(f"{found.gap:.6g}"),
        "mixing_time": round(found.mixing_time, 3) if found.mixing_time < float("inf") else None,
    }


def _graph_name(built: Built) -> str:
    return "handed in" if built.own_graph else built.experiment.graph.kind


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
    mixing, rounds = built.mixing, max(1, built.experiment.run.rounds)
    caption = f"{_graph_name(built).replace('_', ' ')}, N = {mixing.tokens}, "
    caption += f"{built.experiment.graph.mixing} weights; "
    caption += f"colour: N_eff after {rounds} round{'s' if rounds > 1 else ''} of averaging"
    try:
        names = built.nodes.names if built.nodes else ()
        figure = graph_figure(built.graph, mixing, caption, rounds, names)
    except ValueError as failure:
        raise UsageError("--figure", mixing.tokens, str(failure)) from None
    return write_figure(figure, new_folder(out, f"graph-{built.experiment.identity()}"), "graph")
