"""Runs on shared storage: written, opened, stopped and resumed there, to the bits of a folder here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from analysis import open_run
from analysis.errors import UnreadableError
from runner.config.experiment import Experiment
from runner.errors import UsageError
from runner.simulation.resume import resume
from runner.simulation.simulate import simulate

SMALL = Experiment().with_values(
    {"task.tokens": 6, "task.prompts": 9, "run.rounds": 2, "run.batch": 4, "run.trace": "full"}
)
TABLES = ("messages", "workspaces", "prompts", "rounds")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URI of a folder in a bucket of a server that speaks S3."""
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
        aws_access_key_id="someone", aws_secret_access_key="secret",
    )  # fmt: skip
    client.create_bucket(Bucket="runs")
    client.close()
    yield f"s3://someone:secret@runs/mine?endpoint_override={host}%3A{port}&scheme=http&region=us-east-1"
    server.stop()


def of(bucket: str, shown: str) -> str:
    """The URI of what was shown, which holds no password."""
    inside, given = urlsplit(shown), urlsplit(bucket)
    return inside._replace(netloc=given.netloc).geturl()


def test_a_run_there_holds_what_one_here_does(bucket: str, tmp_path: Path) -> None:
    here, there = simulate(SMALL, out=tmp_path), simulate(SMALL, out=bucket)
    shown = str(there.folder)
    assert "secret" not in shown and shown.startswith("s3://runs/mine/run-")
    mine, theirs = open_run(str(here.folder)), open_run(of(bucket, shown))
    assert theirs.is_complete
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(theirs, name), getattr(mine, name))


def test_a_run_that_was_stopped_there_is_resumed(bucket: str, tmp_path: Path) -> None:
    def stop(prompts: range, round: int) -> None:
        if prompts.start == 4 and round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"tokenfield resume '?s3://runs/") as stopped:
        simulate(SMALL, out=bucket, on_round=stop, name="stopped")
    uri = of(bucket, str(stopped.value).rpartition("resume ")[2].strip("'"))
    partial = open_run(uri)
    assert not partial.is_complete
    assert sorted(partial.messages["prompt"].unique()) == list(range(8)), "up to its last complete round"
    done = resume(uri)
    assert (done.prompt_risk == simulate(SMALL).prompt_risk).all()
    whole = open_run(str(simulate(SMALL, out=tmp_path).folder))
    pd.testing.assert_frame_equal(open_run(uri).messages, whole.messages)


def test_what_was_changed_there_is_refused(bucket: str) -> None:
    run = simulate(SMALL, out=bucket).folder
    assert run is not None
    (run / "rounds.parquet").write_bytes(b"other")
    with pytest.raises(UnreadableError, match="was changed since it was written"):
        _ = open_run(run).rounds


def test_the_command_takes_a_uri(bucket: str) -> None:
    sets = [f"--set={key}={value}" for key, value in {"task.tokens": 6, "task.prompts": 4}.items()]
    done = subprocess.run(
        [sys.executable, "-m", "runner", "run", "demo", *sets, "--out", bucket, "--json"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert open_run(of(bucket, json.loads(done.stdout)["run"])).is_complete


@pytest.mark.parametrize("uri", ["nowhere://a/b", "file://elsewhere/runs", "s3://"])
def test_what_is_no_storage_is_refused_before_anything_runs(uri: str) -> None:
    with pytest.raises(UsageError, match="out = "):
        simulate(SMALL, out=uri)


def test_a_bucket_that_is_not_there_is_refused_before_anything_runs(bucket: str) -> None:
    with pytest.raises(UsageError, match="shared storage that can be written") as refused:
        simulate(SMALL, out=bucket.replace("@runs/", "@missing/"))
    assert "secret" not in str(refused.value)


def test_a_uri_of_a_file_is_a_folder_here(tmp_path: Path) -> None:
    done = simulate(SMALL, out=(tmp_path / "my runs").as_uri())
    assert done.folder is not None and done.folder.parent == tmp_path / "my runs"


def test_a_job_does_not_store_in_the_folder_that_ray_takes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UsageError, match="outside of the job's own folder"):
        simulate(SMALL, out="runs")
    assert simulate(SMALL, out=tmp_path / "runs").folder is not None


def test_the_other_commands_say_that_they_store_here(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", "train", "demo", "--out", "memory://x"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr and "--out" in done.stderr
