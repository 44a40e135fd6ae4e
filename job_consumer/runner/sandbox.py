"""The command lines that start a model's program, in the bubblewrap sandbox or as a plain process.

What the sandbox shows of the host, all read-only: /usr with its links, the linker's and TLS's parts of /etc, and the
Python that the consumer runs on. Everything else of the host is not there.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contracts.models import Limits, ModelForRun
from job_consumer.runner.base import ModelRefused
from job_consumer.runner.scratch import RunFolder

RUN_MARKER = "INFERENCE_RUN_FOLDER"
"""Environment variable of every process that a runner starts; its value, a run's folder, is on this host only once."""

_APP = "/app"
_SANDBOX_ID = "65534"
_PROBE_SECONDS = 20.0
_FSIZE_BLOCK = 512
_SMALLEST_TMPFS = 4096  # a tmpfs of size 0 has no bound at all
_RESERVED = (
    "/app",
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/sbin",
    "/sys",
    "/tmp",  # noqa: S108 - the sandbox's own
    "/usr",
)
_ROOT_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "nsswitch.conf", "pki",
    "ca-certificates", "ssl/certs",
    "ssl/openssl.cnf",
)  # fmt: skip
_ETC_OF_NETWORK = ("resolv.conf", "hosts", "gai.conf", "services")

_SHIM = 'ulimit -c 0; ulimit -f "$1" || exit 125; echo 1000 >/proc/self/oom_score_adj; shift; exec "$@"'
"""No core files, a bound on each file, and first in line should the host itself run out of memory."""


@dataclass(frozen=True)
class ProgramStart:
    """All that starting one program takes."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


@dataclass(frozen=True)
class Places:
    """The host's folders that one run gets to see."""

    run: RunFolder
    app: Path
    model: Path


@dataclass(frozen=True)
class Wires:
    """Descriptors that bubblewrap inherits and the program inside does not."""

    status_fd: int
    """Bubblewrap writes the pid of the sandbox's first process here, then the program's exit code, as lines of JSON."""
    gate_fd: int
    """Bubblewrap reads from it, blocking, before it starts the program."""


def check_mountpoints(model: ModelForRun) -> None:
    """Let mountpoints pass that a sandbox can have.

    Raises
    ------
    ModelRefused
        One leaves the root, lies in or above a folder of the system, or in another mountpoint.
    """
    points = [PurePosixPath(p) for p in (model.input_mountpoint, model.output_mountpoint, model.model_mountpoint)]
    for number, point in enumerate(points):
        if ".." in point.parts:
            raise ModelRefused(f"The mountpoint {str(point)!r} holds '..'; name the folder itself.")
        for other in (*map(PurePosixPath, _RESERVED), *points[:number], *points[number + 1 :]):
            if point.is_relative_to(other) or other.is_relative_to(point):
                raise ModelRefused(f"The mountpoint {str(point)!r} collides with {str(other)!r}; choose another one.")


def sandboxed(
    places: Places,
    model: ModelForRun,
    command: Sequence[str],
    max_file_bytes: int,
    gpu_uuid: str | None,
    wires: Wires,
) -> ProgramStart:
    """The program inside bubblewrap."""
    limits = model.limits
    environment = _environment(limits, gpu_uuid) | {
        "HOME": "/tmp",  # noqa: S108 - the sandbox's own
        "INPUT_DIR": model.input_mountpoint,
        "OUTPUT_DIR": model.output_mountpoint,
        "MODEL_DIR": model.model_mountpoint,
    }
    argv = (
        *_shim(max_file_bytes),
        *(
            shutil.which("bwrap") or "bwrap",
            "--die-with-parent",
            "--new-session",
            "--json-status-fd",
            str(wires.status_fd),
        ),
        *("--block-fd", str(wires.gate_fd)),
        *_isolation(limits),
        *_system(has_network=limits.network == "bridge"),
        *_own_etc(places.run),
        *(_gpu() if gpu_uuid else ()),
        *_memory_backed(limits),
        *(word for folder in _python_folders() for word in _mount("--ro-bind", folder, str(folder))),  # may be in /tmp
        *_mount("--ro-bind", places.app, _APP),
        *_mount("--bind", places.run.input, model.input_mountpoint),
        *_mount("--bind", places.run.output, model.output_mountpoint),
        *_mount("--ro-bind", places.model, model.model_mountpoint),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", _APP, "--clearenv"),
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        "--",
        *_become_nobody(),
        *_with_own_python(command),
    )
    return ProgramStart(argv, {"PATH": _PATH, RUN_MARKER: str(places.run.path)}, places.run.path)


def plain(
    places: Places, model: ModelForRun, command: Sequence[str], max_file_bytes: int, gpu_uuid: str | None
) -> ProgramStart:
    """The program as a process like any other of the consumer's user."""
    environment = _environment(model.limits, gpu_uuid) | {
        "HOME": str(places.run.tmp),
        "TMPDIR": str(places.run.tmp),
        "INPUT_DIR": str(places.run.input),
        "OUTPUT_DIR": str(places.run.output),
        "MODEL_DIR": str(places.model),
        RUN_MARKER: str(places.run.path),
    }
    return ProgramStart((*_shim(max_file_bytes), *_with_own_python(command)), environment, places.app)


def why_no_sandbox(places: Places, model: ModelForRun) -> str | None:
    """Run an empty Python program in a sandbox; None when it worked, else why not, in one sentence."""
    if shutil.which("bwrap") is None:
        return "bwrap is not installed (package bubblewrap)"
    gate_fd, status_fd = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)
    try:
        start = sandboxed(places, model, ("python", "-I", "-c", ""), 1 << 20, None, Wires(status_fd, gate_fd))
        done = subprocess.run(
            start.argv, env=dict(start.environment), cwd=start.folder, pass_fds=[status_fd, gate_fd],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"an empty program did not end in the sandbox within {_PROBE_SECONDS:g} s"
    except OSError as error:
        return f"the sandbox could not be started: {error}"
    finally:
        os.close(gate_fd)
        os.close(status_fd)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        return f"an empty program failed in the sandbox: {said}"
    return None


def _shim(max_file_bytes: int) -> tuple[str, ...]:
    return ("sh", "-c", _SHIM, "sh", str(max(1, max_file_bytes // _FSIZE_BLOCK)))


def _isolation(limits: Limits) -> Iterator[str]:
    yield from ("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "model")
    if limits.network == "none":
        yield "--unshare-net"
    yield from ("--cap-drop", "ALL")
    if os.geteuid() == 0:
        # Without a user namespace root would stay root: the program becomes nobody, for which these two are needed.
        yield from ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    else:
        yield from ("--unshare-user", "--uid", _SANDBOX_ID, "--gid", _SANDBOX_ID)


def _become_nobody() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--reuid", _SANDBOX_ID, "--regid", _SANDBOX_ID, "--clear-groups", "--inh-caps=-all", "--")


def own_files(run: RunFolder) -> None:
    """Give input and output to the sandbox's user, where that is another than the consumer's."""
    if os.geteuid() != 0:
        return
    for top in (run.input, run.output):
        for folder, _, files in os.walk(top):
            os.chown(folder, int(_SANDBOX_ID), int(_SANDBOX_ID))
            for name in files:
                os.chown(Path(folder, name), int(_SANDBOX_ID), int(_SANDBOX_ID), follow_symlinks=False)


def _system(*, has_network: bool) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for path in _ROOT_LINKS:
        if Path(path).is_symlink():
            yield from ("--symlink", str(Path(path).readlink()), path)
        else:
            yield from ("--ro-bind-try", path, path)
    for name in (*_ETC, *(_ETC_OF_NETWORK if has_network else ())):
        yield from _mount("--ro-bind-try", Path("/etc", name), f"/etc/{name}")
    yield from ("--proc", "/proc", "--dev", "/dev")


def _python_folders() -> list[Path]:
    """Where this Python lives: its prefixes, and what the links from its executable lead through."""
    folders = {Path(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)}
    executable = Path(sys.executable)
    while executable.is_symlink():
        executable = executable.parent / executable.readlink()
        folders.add(Path(os.path.normpath(executable.parent.parent)))
    folders |= {folder.resolve() for folder in folders}
    outside = {folder for folder in folders if folder != Path("/") and not folder.is_relative_to("/usr")}
    return sorted(folder for folder in outside if not any(folder != o and folder.is_relative_to(o) for o in outside))


def _mount(how: str, source: Path, target: str) -> Iterator[str]:
    """The mount, below folders that every user may pass: bubblewrap by itself makes them for its own user alone."""
    for parent in list(PurePosixPath(target).parents)[-2::-1]:
        yield from ("--dir", str(parent))
    yield from (how, str(source), target)


def _own_etc(run: RunFolder) -> Iterator[str]:
    passwd, group = run.etc / "passwd", run.etc / "group"
    passwd.write_text(f"model:x:{_SANDBOX_ID}:{_SANDBOX_ID}:model:/tmp:/bin/sh\n", encoding="ascii")
    group.write_text(f"model:x:{_SANDBOX_ID}:\n", encoding="ascii")
    for path in (passwd, group):
        path.chmod(0o644)
        yield from _mount("--ro-bind", path, f"/etc/{path.name}")


def _gpu() -> Iterator[str]:
    for device in sorted(Path("/dev").glob("nvidia*")):
        yield from ("--dev-bind", str(device), str(device))
    yield from ("--ro-bind-try", "/sys", "/sys")  # the driver's library looks up the topology there


def _memory_backed(limits: Limits) -> Iterator[str]:
    for path, size in (("/tmp", limits.memory_bytes), ("/dev/shm", limits.shm_bytes)):  # noqa: S108
        yield from ("--perms", "1777", "--size", str(max(size, _SMALLEST_TMPFS)), "--tmpfs", path)


_PATH = ":".join(
    dict.fromkeys((str(Path(sys.prefix) / "bin"), "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin"))
)


def _environment(limits: Limits, gpu_uuid: str | None) -> dict[str, str]:
    """What every program is told; ``cpus`` is a request to its thread pools, nothing here pins or throttles."""
    threads = str(max(1, round(limits.cpus)))
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",  # else a killed program takes the end of its log along
        "CUDA_VISIBLE_DEVICES": gpu_uuid or "",
        **dict.fromkeys(pools, threads),
    }


def _with_own_python(command: Sequence[str]) -> tuple[str, ...]:
    program = sys.executable if command[0] in {"python", "python3"} else command[0]
    return (program, *command[1:])
