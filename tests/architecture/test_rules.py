"""Rules that no linter of ours knows. Each test says why the rule is there; an exception to it stands here, with a reason."""

import ast
from collections.abc import Iterator

from contracts.task_state import TaskState
from tests.architecture.sources import PRODUCT, ROOT, modules

MAY_READ_THE_ENVIRONMENT = {
    "service_kit/settings.py": "the one reader of settings",
    "inference_client/cli/": "a command line has no settings module",
    "standalone/layout.py": "where the desktop wants data to lie",
    "standalone/demo.py": "the environment of the commands that it shows",
    "online_worker/engines/onnx_session.py": "by it alone is onnxruntime told to report nothing",
}

_ENVIRONMENT = {"environ", "getenv"}

MAY_BE_LONG: dict[str, str] = {}
"""Modules above 350 lines, and never above 500, with the reason."""

MAY_BE_LONG_FUNCTIONS: dict[str, str] = {}
"""``path:function`` above 60 lines, with the reason."""


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, without the docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


def _functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _reads_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) in {"os.environ", "os.getenv"}
    return (
        isinstance(node, ast.ImportFrom) and node.module == "os" and bool(_ENVIRONMENT & {a.name for a in node.names})
    )


def test_the_environment_is_read_by_the_settings_alone() -> None:
    """A variable that is read in passing is in no documentation, in no ``.env.example`` and in no test of the settings."""
    readers = {
        path
        for path, module in modules(*PRODUCT)
        for node in ast.walk(module)
        if _reads_environment(node)
        if not any(path.startswith(allowed) for allowed in MAY_READ_THE_ENVIRONMENT)
    }

    assert readers == set()


def test_no_test_sleeps() -> None:
    """A sleep is too short on a busy machine and too long on every other; ``tests.support.waiting`` waits for the thing itself."""
    sleepers = {
        f"{path}:{node.lineno}"
        for path, module in modules("tests")
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}
        if path != "tests/support/waiting.py"
    }

    assert sleepers == set()


def test_modules_stay_small_enough_to_read_in_one_go() -> None:
    """Half a dozen screens; what grows beyond has two reasons to change, and is two modules."""
    long = {}
    for folder in PRODUCT:
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            name = path.relative_to(ROOT).as_posix()
            if lines > (500 if name in MAY_BE_LONG else 350):
                long[name] = lines

    assert long == {}


def test_functions_stay_small_enough_to_see_at_once() -> None:
    """The 99th percentile of the projects that we learned from; above it nobody sees the whole any more."""
    long = {
        f"{path}:{node.name}": _lines(node)
        for path, module in modules(*PRODUCT)
        for node in _functions(module)
        if _lines(node) > 60 and f"{path}:{node.name}" not in MAY_BE_LONG_FUNCTIONS
    }

    assert long == {}


def test_states_are_named_in_one_module_only() -> None:
    """``if state == "pendng"`` is false for ever and no tool says so; ``TaskState.PENDNG`` does not even import."""
    names = {state.value for state in TaskState}
    strings = {
        f"{path}:{node.lineno}"
        for path, module in modules(*PRODUCT)
        for comparison in ast.walk(module)
        if isinstance(comparison, ast.Compare | ast.MatchValue)
        for node in ast.walk(comparison)
        if isinstance(node, ast.Constant) and node.value in names
        if path != "contracts/task_state.py"
    }

    assert strings == set()


def _only_cleans_up(handler: ast.ExceptHandler) -> bool:
    """Whether it raises the same error again."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_broad_handlers_stay_in_the_loops_that_must_survive() -> None:
    """An ``except Exception`` in passing hides the mistake that a test would have found; these places log and classify."""
    allowed = {
        "job_consumer/consumer.py",
        "job_consumer/executor.py",
        "online_gateway/dialects/routes.py",
        "online_worker/engines/python.py",
        "online_worker/loader.py",
    }
    broad = {
        path
        for path, module in modules(*PRODUCT)
        for node in ast.walk(module)
        if isinstance(node, ast.ExceptHandler)
        if node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
        if not _only_cleans_up(node)
    }

    assert broad <= allowed


VENDORS = {
    "sqlalchemy": ("private_api/storage/", "private_api/migrations/"),
    "alembic": ("private_api/storage/", "private_api/migrations/"),
    "psycopg": ("private_api/storage/",),
    "pika": ("private_api/storage/queue.py", "job_consumer/inbox/rabbitmq.py"),
    "docker": ("job_consumer/runner/docker/",),
    "aiohttp": ("public_api/relay.py",),
    "httpx": ("job_consumer/private_api.py", "inference_client/", "standalone/"),
    "onnx": ("online_worker/engines/onnx",),
    "onnxruntime": ("online_worker/engines/onnx",),
    "uvicorn": ("service_kit/",),
    "structlog": ("service_kit/",),
}


def test_each_vendor_library_stays_behind_its_adapter() -> None:
    """What is imported in one place can be replaced, and faked, in one place. By module: import-linter sees whole packages."""
    strays = {
        f"{path} imports {name}"
        for path, module in modules(*PRODUCT)
        for node in ast.walk(module)
        for name in _imported(node)
        if name in VENDORS and not path.startswith(VENDORS[name])
    }

    assert strays == set()


def _imported(node: ast.AST) -> list[str]:
    """The top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
        return [node.module.split(".")[0]]
    return []
