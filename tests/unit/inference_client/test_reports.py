"""What people see while a task is on its way."""

import io

import pytest
from rich.console import Console

from contracts.task_state import TaskState
from inference_client.cli.reports import PlainReport
from inference_client.cli.sentences import doing, run_seconds, table
from inference_client.cli.terminal import TerminalReport
from inference_client.errors import ServerUnreachable
from tests.support.wire_script import ScriptedTask

PENDING, RUNNING, FINISHED, FAILED = TaskState.PENDING, TaskState.RUNNING, TaskState.FINISHED, TaskState.FAILED


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (ScriptedTask("u", states=[PENDING]), "pending, number 3 in the queue"),
        (
            ScriptedTask("u", states=[PENDING], waiting_for="no consumer with a GPU is there"),
            "pending, number 3 in the queue: no consumer with a GPU is there",
        ),
        (ScriptedTask("u", states=[RUNNING]), "running: the model works"),
        (ScriptedTask("u", states=[FINISHED]), "finished after 12.3 s of run time"),
        (ScriptedTask("u", states=[FAILED], error="out of memory"), "failed after 12.3 s of run time: out of memory"),
    ],
)
def test_each_state_has_its_sentence(task: ScriptedTask, sentence: str) -> None:
    assert doing(task.status()) == sentence


def test_a_second_attempt_is_told() -> None:
    status = ScriptedTask("u", states=[RUNNING]).status().model_copy(update={"attempt": 2})

    assert doing(status) == "running (attempt 2 of 3): the model works"


def test_a_task_without_attempts_has_no_run_time() -> None:
    assert run_seconds(ScriptedTask("u", states=[PENDING]).status()) is None


def test_lines_come_once_per_change_and_without_control_characters() -> None:
    out = io.StringIO()
    report = PlainReport(out)
    pending = ScriptedTask("u", states=[PENDING], waiting_for="\x1b[2Jnobody").status()

    report.status(pending)
    report.status(pending)
    report.trouble(ServerUnreachable("it is away."))
    with report.passing("output") as progress:
        progress(10, 2048)
        progress(2048, 2048)

    assert out.getvalue().splitlines() == [
        "pending, number 3 in the queue: \N{REPLACEMENT CHARACTER}[2Jnobody",
        "trying again: it is away.",
        "output: 2.0 KiB",
    ]


def test_a_terminal_shows_bars_and_the_live_sentence() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    report = TerminalReport(console)

    with report.passing("input") as progress:
        progress(2**20, 2**20)
    with report.watching():
        report.status(ScriptedTask("u", states=[RUNNING]).status())
        report.trouble(ServerUnreachable("it is away."))
        report.status(ScriptedTask("u").status())

    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "1.0/1.0 MiB" in shown
    assert "finished after 12.3 s of run time" in shown


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("A", "B"), [("long", "x"), ("s", "y")]) == "A     B\nlong  x\ns     y"
