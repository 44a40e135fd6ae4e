"""The list of posted tasks: private, bounded, and able to complete a uid."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from inference_client.cli import history
from inference_client.errors import InputRefused

URL = "http://127.0.0.1:8000"
ELSEWHERE = "https://inference.example.org"


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def uid(beginning: str) -> str:
    return beginning.ljust(43, "x")


def test_the_newest_task_comes_first_and_other_servers_do_not_show() -> None:
    history.remember(uid("a"), URL, "one")
    history.remember(uid("b"), ELSEWHERE, "two")
    history.remember(uid("c"), URL, "three")

    assert [task.model for task in history.posted_to(URL)] == ["three", "one"]


def test_the_file_is_readable_by_its_owner_alone(state_home: Path) -> None:
    history.remember(uid("a"), URL, "one")

    mode = (state_home / "infer" / "tasks.jsonl").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_only_the_newest_thousand_are_kept(state_home: Path) -> None:
    line = '{{"uid": "old{0}", "url": "{1}", "model": "m", "posted_at": "2024-05-01T12:00:00+00:00"}}\n'
    (state_home / "infer").mkdir()
    history.history_file().write_text("".join(line.format(number, URL) for number in range(1000)))

    history.remember(uid("new"), URL, "m")

    kept = history.posted_to(URL)
    assert len(kept) == 1000
    assert (kept[0].uid, kept[-1].uid) == (uid("new"), "old1")


def test_a_damaged_line_does_not_take_the_others_along() -> None:
    history.remember(uid("a"), URL, "one")
    with history.history_file().open("a") as file:
        file.write('{"uid": \nnull\n{"other": 1}\n')

    history.remember(uid("b"), URL, "two")

    assert [task.model for task in history.posted_to(URL)] == ["two", "one"]


def test_processes_that_post_at_once_lose_no_task() -> None:
    script = (
        "import sys; from inference_client.cli.history import remember\n"
        f"for n in range(20): remember(sys.argv[1] + str(n), {URL!r}, 'm')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, name], env=dict(os.environ)) for name in "abc"]

    assert [writer.wait(60) for writer in writers] == [0, 0, 0]

    assert len({task.uid for task in history.posted_to(URL)}) == 60


def test_the_beginning_of_a_uid_is_enough_where_it_is_the_only_one() -> None:
    history.remember(uid("abc"), URL, "one")
    history.remember(uid("abd"), URL, "two")

    assert history.whole_uid("abc", URL) == uid("abc")
    with pytest.raises(InputRefused, match="2 tasks begin with 'ab'"):
        history.whole_uid("ab", URL)
    with pytest.raises(InputRefused, match="No task posted from here"):
        history.whole_uid("zz", URL)


def test_a_task_of_another_server_is_named_with_its_server() -> None:
    history.remember(uid("abc"), ELSEWHERE, "one")

    with pytest.raises(InputRefused, match=f"--url {ELSEWHERE}"):
        history.whole_uid("abc", URL)


def test_a_whole_uid_need_not_be_known() -> None:
    assert history.whole_uid(uid("unknown"), URL) == uid("unknown")


def test_what_was_deleted_is_forgotten() -> None:
    history.remember(uid("a"), URL, "one")
    history.remember(uid("b"), URL, "two")

    history.forget({uid("b")})

    assert [task.model for task in history.posted_to(URL)] == ["one"]
