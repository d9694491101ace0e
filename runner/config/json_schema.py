"""The JSON schema of an experiment file, by which editors complete and check it.

`experiment.schema.json` beside this module is what `tokenfield schema` prints without packages that register
entries of their own: completion reads it, and loads nothing else.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from runner.config.experiment import Experiment
from runner.config.studies import Comparison


def json_schema() -> dict[str, Any]:
    """What may stand in an experiment file, tables of studies included: keys, types, bounds, names.

    Example:
        >>> json_schema()["$defs"]["ChannelSection"]["properties"]["bits"]["maximum"]
        48
    """
    schema = Comparison.model_json_schema()
    variant = schema["$defs"]["AblationSection"]["properties"]["variants"]["additionalProperties"]
    variant["propertyNames"] = {"enum": _keys()}
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "tokenfield experiment"}


def _keys() -> list[str]:
    """The keys `table.key` of an experiment."""
    tables = Experiment().model_dump()
    return [f"{table}.{key}" for table, keys in tables.items() for key in keys]
