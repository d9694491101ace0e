"""The JSON schema of experiment files accepts what tokenfield reads, and refuses what it does not."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runner.cli.completion import SCHEMA
from runner.config.experiment import parse
from runner.config.files import presets
from runner.config.studies import Comparison
from runner.errors import UsageError

ROOT = Path(__file__).parents[2]
KEPT: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(KEPT)
WRONG = [
    "[channel]\nbit = 3", "[chanel]\nbits = 3", "[channel]\nbits = 0", "[channel]\nbits = 49",
    "[channel]\nbits = true", '[task]\ntokens = "32"', "[task]\ntokens = 1.5", "[prior]\ndecay = 0.0",
    "[prior]\njitter = 1.0", '[prior]\nkind = "bush"', '[policy]\nkind = "clever"', '[graph]\nkind = "web"',
    '[run]\nengine = "steam"', '[run]\ntrace = "some"', "[policy]\ncontrol_variate = 1",
    "[policy]\nrounds_per_scale = []", '[policy]\nrepeats = "never"', "task = 3",
    '[compare]\npolicies = ["clever"]', '[compare]\ntransformers = ["deep"]', "[locality]\ndepths = [0]",
    '[locality]\nfamilies = ["causal"]', "[ablation.variants.a]\n\"transformer.depth\" = 3",
    '[ablation]\nunconstrained = ["hard"]', "[causal]\nnoises = [-1.0]", "[causal]\nnoise = [1.0]",
]  # fmt: skip


def is_read(content: dict[str, Any]) -> bool:
    try:
        parse(Comparison, content)
    except UsageError:
        return False
    return True


def test_the_schema_that_is_kept_is_the_one_that_is_printed() -> None:
    """Where this fails: tokenfield schema > runner/config/experiment.schema.json"""
    command = [sys.executable, "-m", "runner", "schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == KEPT


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(KEPT)


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid(name: str) -> None:
    VALIDATOR.validate(tomllib.loads(presets()[name].read_text(encoding="utf-8")))


def test_the_defaults_of_the_readme_are_valid() -> None:
    text = (ROOT / "runner" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3  # the third is a sweep, which has keys of its own
    for block in blocks[:2]:
        VALIDATOR.validate(tomllib.loads(block))


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_read_is_not_valid(text: str) -> None:
    content = tomllib.loads(text)
    assert not VALIDATOR.is_valid(content)
    assert not is_read(content) or "variants" in text, "keys of variants are checked by their study"


@pytest.mark.parametrize(
    "text",
    ["[policy]\nrounds_per_scale = [1, 2]", "[policy]\nrepeats = 1", "[prior]\ndecay = 1",
     "[graph]\nwindow = 3", '[policy.options]\nname = "x"', "",
     '[ablation.variants.a]\n"transformer.looped" = true'],
)  # fmt: skip
def test_what_is_read_is_valid(text: str) -> None:
    content = tomllib.loads(text)
    assert is_read(content)
    VALIDATOR.validate(content)


def test_a_name_that_another_package_registers_is_in_what_is_printed() -> None:
    program = (
        "import sys; from agents.policies import POLICIES; from runner.cli import main\n"
        "POLICIES['foreign'] = POLICIES['flood']; sys.argv = ['tokenfield', 'schema']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert "foreign" in json.loads(done.stdout)["$defs"]["PolicySection"]["properties"]["kind"]["enum"]


def test_tables_and_keys_say_what_they_are() -> None:
    for name, table in KEPT["$defs"].items():
        assert table["description"].startswith("["), name
    assert "b" in KEPT["$defs"]["ChannelSection"]["properties"]["bits"]["description"]
