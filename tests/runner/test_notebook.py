"""In a notebook: a run that is interrupted leaves nothing behind, and the next one is clean at once."""

import time
from collections.abc import Iterator

import nbformat
import psutil
import pytest
from jupyter_client import KernelManager
from jupyter_client.blocking import BlockingKernelClient
from nbclient import NotebookClient

Kernel = tuple[KernelManager, BlockingKernelClient]

SETUP = """
from runner import Experiment, RayEngine, simulate
def risks(tokens, prompts=50, on="ray", **more):
    values = {"task.tokens": tokens, "task.prompts": prompts, "run.engine": on, "run.batch": 50}
    return simulate(Experiment().with_values(values), **more).risk.round(6).tolist()
"""


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def said(client: BlockingKernelClient, code: str) -> str:
    """What a cell prints; of an error its name and what it says."""
    parts: list[str] = []

    def hear(message: dict[str, dict[str, str]]) -> None:
        content = message["content"]
        if "ename" in content:
            parts.append(f"{content['ename']}: {content['evalue']}")
        else:
            parts.append(content.get("text", "") if content.get("name") == "stdout" else "")

    client.execute_interactive(code, timeout=120, output_hook=hear)
    return "".join(parts)


def actors(manager: KernelManager) -> list[psutil.Process]:
    """Processes of token actors below the kernel."""
    below = psutil.Process(manager.provisioner.pid).children(recursive=True)
    return [process for process in below if "TokenActor" in " ".join(process.cmdline())]


def test_a_run_on_ray_that_is_interrupted_leaves_the_next_one_clean(kernel: Kernel) -> None:
    manager, client = kernel
    said(client, SETUP)
    for engine in ("", ", engine=kept"):
        said(client, "kept = RayEngine()" if engine else "")
        long = client.execute(f"risks(4, 1000000{engine})")
        while len(actors(manager)) < 4:
            time.sleep(0.1)
        time.sleep(1)  # in the middle of rounds
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != long:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert said(client, f"print(risks(6{engine}) == risks(6, on='local'))").strip() == "True"
    said(client, "kept.close()")
    assert not psutil.wait_procs(actors(manager), timeout=20)[1]


def test_a_kernel_that_is_restarted_runs_on_ray_again(kernel: Kernel) -> None:
    manager, client = kernel
    said(client, SETUP)
    assert said(client, "kept = RayEngine(); print(len(risks(3, engine=kept)))").strip() == "5"
    left = psutil.Process(manager.provisioner.pid).children(recursive=True)
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=60)
    assert not psutil.wait_procs(left, timeout=20)[1], "the cluster ended with its kernel"
    said(client, SETUP)
    assert said(client, "print(len(risks(5)))").strip() == "5"


@pytest.mark.slow
def test_a_notebook_runs_from_top_to_bottom() -> None:
    cells = [SETUP, "print(risks(3) == risks(3, on='local'))"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert notebook.cells[1].outputs[0]["text"] == "True\n"
