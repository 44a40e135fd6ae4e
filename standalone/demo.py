"""``make demo``: starts the platform as a user would, sends it a real CT slice, and shows what came back."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from standalone.layout import default_models_folder

_READY = "InferenceServer is ready at "
_START_SECONDS = 120
_RUN_SECONDS = 300
_STOP_SECONDS = 30


def main() -> int:
    """Run the demonstration; the exit status."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo_output").resolve()
    models = default_models_folder()
    if models is None:
        sys.stderr.write("The demo runs from a clone of the repository: models_examples is not here.\n")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    infer = str(Path(sys.executable).parent / "infer")
    with tempfile.TemporaryDirectory(prefix="infer-demo-") as data:
        platform = _start([infer, "up", "--examples", "--port", "0", "--online-port", "0", "--data", data])
        try:
            url = _wait_for_url(platform)
            sample = folder / "sample.zip"
            _run([sys.executable, str(models / "ct_body_mask" / "make_sample.py"), str(sample)])
            environment = {**os.environ, "XDG_STATE_HOME": data}
            _run([infer, "--url", url, "run", "ct-body-mask", str(sample), "-o", str(folder / "output")], environment)
        finally:
            platform.send_signal(signal.SIGTERM)
            try:
                platform.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                platform.kill()
    return _show(folder / "output")


def _start(command: list[str]) -> "subprocess.Popen[str]":
    _say(command)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _wait_for_url(platform: "subprocess.Popen[str]") -> str:
    assert platform.stdout is not None  # noqa: S101 - opened as a pipe
    timer = threading.Timer(_START_SECONDS, platform.kill)
    timer.start()
    try:
        for line in platform.stdout:
            sys.stdout.write(line)
            if line.startswith(_READY):
                return line.removeprefix(_READY).split()[0]
    finally:
        timer.cancel()
    raise SystemExit("The platform did not start; its last lines are above.")


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    _say(command)
    done = subprocess.run(command, env=environment, timeout=_RUN_SECONDS, check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)


def _show(output: Path) -> int:
    wanted = [output / "overlay.png", output / "report.json"]
    absent = [path for path in wanted if not path.is_file()]
    if absent:
        sys.stderr.write(f"The model left no {', '.join(path.name for path in absent)}.\n")
        return 1
    report = json.loads(wanted[1].read_text(encoding="utf-8"))
    area = sum(slice_["body_area_mm2"] for slice_ in report["slices"])
    sys.stdout.write(f"\nbody: {area:.0f} mm², {report['body']['hounsfield']['mean']:.0f} HU on average\n")
    sys.stdout.writelines(f"{path}\n" for path in wanted)
    return 0


def _say(command: list[str]) -> None:
    shown = [Path(command[0]).name, *command[1:]]
    sys.stdout.write(f"$ {shlex.join(shown)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
