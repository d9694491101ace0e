"""One frozen Experiment: everything that determines a simulation, checked when it is made."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from agents.policies import POLICIES
from agents.prior import PRIORS
from runner.config.files import read_toml, toml_value
from runner.config.registries import OneOf, entry_of
from runner.engines import ENGINES
from runner.errors import UsageError, expect, nearest
from topology.families import FAMILIES


class Section(BaseModel):
    """A table of an experiment file: frozen, strict, no unknown keys, no NaN.

    What is written below a key describes it in the JSON schema.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Model = TypeVar("Model", bound="Document")


class Document(Section):
    """What a file holds: mistakes in it are told in the words of this project.

    Raises:
        UsageError: if a key is unknown or a value impossible.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls: type[Model], content: Any, check: Callable[[Any], Model]) -> Model:
        """Say in the words of this project what pydantic refuses, however an experiment is made."""
        try:
            return check(content)
        except ValidationError as failure:
            errors = [_explain(cls, error["loc"], error["input"]) for error in failure.errors()]
        # A value that fits no branch of a union is reported once for each branch; the first says it all.
        raise UsageError.of(list({error.key: error for error in reversed(errors)}.values())[::-1])


class PriorSection(Section):
    """[prior]: what the latent task is drawn from."""

    kind: Annotated[str, entry_of(PRIORS)] = "tree"
    """The law that the latent task is drawn from."""
    levels: int = Field(3, ge=1, le=12)
    """Scales of the tree, D."""
    branching: int = Field(2, ge=2, le=64)
    """Children of each node of the tree."""
    decay: float = Field(0.8, gt=0, le=10)
    """Ratio of the amplitudes of consecutive levels, rho."""
    directions: Literal["orthonormal", "random"] = "orthonormal"
    jitter: float = Field(0.0, ge=0, lt=1)
    """Share of E|w|^2 in a Gaussian around the leaves."""
    dim: int = Field(7, ge=1, le=4096)
    """Dimension of inputs and task, d."""


class TaskSection(Section):
    """[task]: the in-context regression prompts."""

    tokens: int = Field(32, ge=1, le=2**20)
    """Token positions, N."""
    label_noise: float = Field(0.1, ge=0, le=1e3)
    """Standard deviation of the noise of labels, sigma."""
    prompts: int = Field(2000, ge=1, le=2**31)
    """Prompts that are simulated."""


class GraphSection(Section):
    """[graph]: who hears whom."""

    kind: Annotated[str, entry_of(FAMILIES, "file")] = "complete"
    """The family of the graph, or "file"."""
    degree: int = Field(4, ge=1, le=2**20)
    """Neighbours of a token: of ring, small_world, random_regular, erdos_renyi, tree."""
    rewire: float = Field(0.2, ge=0, le=1)
    """Share of edges that are rewired at random: of small_world."""
    window: int | None = Field(None, ge=1, le=2**20)
    """Tokens back that a causal token hears; all by default."""
    seed: int = Field(0, ge=0, lt=2**32)
    path: str | None = None
    """A GraphML or edge-list file, also as .gz or .bz2: of kind "file"."""
    mixing: Literal["uniform", "metropolis"] = "uniform"


class ChannelSection(Section):
    """[channel]: the bound on a message."""

    channels: int = Field(1, ge=1, le=256)
    """Scalars in a message, K."""
    bits: int = Field(24, ge=1, le=48)
    """Bits of a scalar, b."""
    clip: float = Field(8.0, gt=0, le=1e6)
    """Largest absolute value of a scalar, c."""
    noise: float = Field(0.0, ge=0, le=1e3)
    """Standard deviation of the transmitter's noise, tau."""


Turn = Annotated[int, Ge(1), Le(64)]
Turns = Annotated[tuple[Turn, ...], Strict(False), MinLen(1)]


Fraction = Annotated[float, Ge(0), Le(1)]


class PolicySection(Section):
    """[policy]: what a token asks and how it believes."""

    kind: Annotated[str, entry_of(POLICIES)] = "adaptive"
    """What a token asks, and how it believes."""
    control_variate: bool = True
    order: Literal["auto", "widest", "level", "codes", "pooled"] = "auto"
    """Of adaptive: widest or level; of static: codes or pooled; auto: what theory finds better, or codes."""
    belief: Literal["exact", "joint", "independent"] = "exact"
    """Law of a field: exact, or Gaussian with rounds joint or independent."""
    repeats: Fraction | Literal["auto"] = "auto"
    """Weight of a repeated answer: 0 counts the first alone."""
    own_example: bool = False
    """The estimate, not the messages, uses the token's own example."""
    rounds_per_scale: Turn | Turns | Literal["auto"] = "auto"
    """Of gossip: T, a list of T for each question, or what theory finds best."""
    step: float | None = Field(None, gt=0, le=100)
    """Of gradient; by default it follows from what a token hears."""
    options: dict[str, bool | int | float | str] = {}
    """Keys of a policy that another package registers."""


class TransformerSection(Section):
    """[transformer]: architecture and training of the learned policy."""

    width: int = Field(32, ge=1, le=4096)
    hidden: int = Field(128, ge=1, le=16384)
    feedforward: bool = True
    adaptive_queries: bool = True
    looped: bool = False
    steps: int | None = Field(None, ge=1, le=10**7)
    """Of training; by default their number grows with depth."""
    effort: float = Field(1.0, gt=0, le=1000)
    """Times the default number of steps."""
    batch: int | None = Field(None, ge=1, le=2**20)
    """Prompts in a step of training; by default as many workspaces in each step."""
    learning_rate: float = Field(1e-2, gt=0, le=1)
    sampling: Literal["auto", "tokens", "statistics"] = "auto"
    """What training draws: auto draws statistics where they are exact, and tokens elsewhere."""
    patience: int = Field(0, ge=0, le=10**6)
    """Reports without progress until training stops; 0 never."""
    seed: int = Field(0, ge=0, lt=2**63)


class RunSection(Section):
    """[run]: how far and where. Engine, actor size, batch and trace change no result."""

    rounds: int = Field(4, ge=0, le=64)
    """Rounds of messages, the depth L."""
    engine: Annotated[str, entry_of(ENGINES)] = "local"
    tokens_per_actor: Annotated[int, Field(ge=1, le=2**20)] | Literal["auto"] = 1
    """Token positions that a Ray actor holds; auto for one actor on each core of the cluster."""
    batch: int | None = Field(None, ge=1, le=2**31)
    """Prompts at a time; by default as many as memory holds."""
    seed: int = Field(0, ge=0, lt=2**63)
    trace: Literal["none", "rounds", "sampled", "full"] = "rounds"


Index = Annotated[int, Ge(0)]
Indices = Annotated[tuple[Index, ...], Strict(False), MinLen(1)]
Column = Literal[
    "code",
    "value",
    "wire",
    "clipped",
    "bits",
    "error",
    "effective",
    "claimed",
    "estimate",
    "correct",
    "entropy",
    "belief",
]
Columns = Annotated[tuple[Column, ...], Strict(False)]


class TraceSection(Section):
    """[trace]: which messages and workspaces are kept, of those of run.trace; it changes no result."""

    every: int = Field(1, ge=1, le=64)
    """Keep each so many rounds, from round 0."""
    rounds: Indices | None = None
    """Rounds that are kept, in place of every."""
    positions: Indices | None = None
    """Token positions whose workspaces, and the messages that they send, are kept."""
    prompts: Indices | None = None
    """Prompts that are kept, in place of those that run.trace samples."""
    columns: Columns | None = None
    """Columns that are kept beside those that say which message or workspace it is."""


class Experiment(Document):
    """Everything that determines a simulation.

    Raises:
        UsageError: if a key is unknown or a value impossible.

    Example:
        >>> experiment = Experiment()
        >>> experiment.task.tokens, experiment.with_values({"task.tokens": 8}).task.tokens
        (32, 8)
    """

    prior: PriorSection = PriorSection()
    task: TaskSection = TaskSection()
    graph: GraphSection = GraphSection()
    channel: ChannelSection = ChannelSection()
    policy: PolicySection = PolicySection()
    transformer: TransformerSection = TransformerSection()
    run: RunSection = RunSection()
    trace: TraceSection = TraceSection()

    @property
    def channels(self) -> int:
        """Scalars in a message: K, or as many as the policy needs.

        Example:
            >>> Experiment().with_values({"policy.kind": "gradient"}).channels
            7
        """
        asked, tokens, dim = self.channel.channels, self.task.tokens, self.prior.dim
        return POLICIES[self.policy.kind].channels(asked, tokens, dim)

    def with_values(self: Model, values: Mapping[str, object]) -> Model:
        """A copy with some dotted keys set, checked anew.

        Args:
            values: by dotted key, for example "run.rounds".

        Raises:
            UsageError: if a key is unknown or a value impossible.
        """
        possible = 'a dictionary of dotted keys, for example {"run.rounds": 3}'
        expect("values", values, Mapping, possible)
        for key in values:
            expect("values", key, str, possible)
        return parse(type(self), self.model_dump(), values)

    def _repr_html_(self) -> str:
        """All keys in a notebook, with those that are not the default."""
        from analysis.report.notebook import of_experiment

        tables, defaults = self.model_dump(mode="json"), type(self)().model_dump(mode="json")
        changed = {
            f"{name}.{key}"
            for name, keys in tables.items()
            for key, value in keys.items()
            if value != defaults[name][key]
        }
        return of_experiment(tables, changed)

    def identity(self) -> str:
        """Stable id: the same for experiments with the same results, on any engine and trace level.

        Example:
            >>> Experiment().identity() == Experiment().with_values({"run.engine": "ray"}).identity()
            True
        """
        bare = {"run": {"engine", "tokens_per_actor", "batch", "trace"}}
        content = self.model_dump(mode="json", exclude=bare)
        del content["trace"]
        if not POLICIES[self.policy.kind].is_trained:
            del content["transformer"]
        if not content["policy"]["options"]:
            del content["policy"]["options"]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=5).hexdigest()


def parse(
    model: type[Model], content: Mapping[str, Any], overrides: Mapping[str, object] | None = None
) -> Model:
    """Make a checked model from the content of a file and dotted overrides.

    Raises:
        UsageError: all that is wrong, a line each.
    """
    merged = dict(content)
    for key, value in (overrides or {}).items():
        *tables, name = key.split(".")
        target = merged
        for table in tables:
            inner = target.get(table)
            if not isinstance(inner, dict | NoneType):
                raise UsageError(key, value, f"{table} is a value, not a table of keys")
            target[table] = dict(inner or {})  # None: a table that may be left out
            target = target[table]
        target[name] = value
    return model.model_validate(merged)


def load(model: type[Model], path: Path, overrides: Mapping[str, object] | None = None) -> Model:
    """Read a TOML file.

    Raises:
        UsageError: if the file is missing, not TOML, larger than any experiment, or asks for something
            impossible.
    """
    return parse(model, read_toml(path), overrides)


def assignments(settings: Sequence[str]) -> dict[str, object]:
    """Parse `key=value` overrides; a value is TOML, or else a string.

    Raises:
        UsageError: if one has no `=`, or a value larger than any of an experiment.

    Example:
        >>> assignments(["run.rounds=3", "policy.kind=static"])
        {'run.rounds': 3, 'policy.kind': 'static'}
    """
    values: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError("--set", setting, "key=value, for example run.rounds=3")
        values[key.strip()] = toml_value(setting, text)
    return values


def _explain(model: type[Section], location: tuple[int | str, ...], given: object) -> UsageError:
    """One validation error in the words of this project."""
    owner: type[Section] = model
    if not location:
        return UsageError("experiment", given, f"a table with the keys {', '.join(model.model_fields)}")
    for depth, part in enumerate(location, 1):
        name = str(part)
        # What follows the field is the index in a list, or the branch of a union, which nobody typed.
        index = location[depth : depth + 1] if type(next(iter(location[depth:]), "")) is int else ()
        key = ".".join(str(k) for k in (*location[:depth], *index))
        if name not in owner.model_fields:
            known = list(owner.model_fields)
            return UsageError(key, given, f"the keys {', '.join(known)}", nearest(name, known))
        found = owner.model_fields[name]
        inner = _section_in(found.annotation)
        if depth == len(location) or inner is None:
            break
        owner = inner
    return UsageError(key, given, possible(found))


def _section_in(annotation: object) -> type[Section] | None:
    """The table that a field holds, which may be one that is left out."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def possible(field: FieldInfo) -> str:
    """What a field accepts, in words.

    Example:
        >>> possible(ChannelSection.model_fields["bits"])
        'an integer from 1 to 48'
        >>> possible(PolicySection.model_fields["rounds_per_scale"])
        'an integer from 1 to 64 or a list of one or more integers from 1 to 64 or "auto"'
    """
    annotation = field.annotation
    if NoneType in get_args(annotation) and get_origin(get_args(annotation)[0]) is Annotated:
        inner = FieldInfo.from_annotation(get_args(annotation)[0])
        if get_origin(inner.annotation) is tuple:
            return possible(inner)
    if get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        each = possible(FieldInfo.from_annotation(item))
        least = "one or more " if any(isinstance(mark, MinLen) for mark in field.metadata) else ""
        return f"a list of {least}{each.replace('an integer', 'integers')}"
    if get_origin(annotation) is dict:
        return "a table of numbers, strings and truth values"
    if get_origin(annotation) is Literal:
        return " | ".join(f'"{value}"' for value in get_args(annotation))
    for mark in field.metadata:
        if isinstance(mark, OneOf):
            return " | ".join(f'"{name}"' for name in mark.names())
    if annotation is bool:
        return "true or false"
    if (table := _section_in(annotation)) is not None:
        return f"a table with the keys {', '.join(table.model_fields)}"
    if str in get_args(annotation):
        return "a string"
    branches = [branch for branch in get_args(annotation) if branch is not NoneType]
    if len(branches) > 1:
        return " or ".join(possible(FieldInfo.from_annotation(branch)) for branch in branches)
    words = "an integer" if int in (annotation, *branches) else "a finite number"
    bounds = []
    for bound in field.metadata:
        match bound:
            case Ge(ge=low):
                bounds.append(f"from {low}")
            case Gt(gt=low):
                bounds.append(f"above {low}")
            case Le(le=high):
                bounds.append(f"to {high}")
            case Lt(lt=high):
                bounds.append(f"below {high}")
    return " ".join([words, *bounds])
