"""An event loop whose time passes at once: where nothing is ready, the clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for ever"
        self.now += max(timeout, 0.0)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Seconds cost nothing in it; an exception that nobody takes ends up in ``accidents``."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self.accidents: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.accidents.append(context))

    def time(self) -> float:
        return self._jumping.now

    def settle(self, act: Callable[[], object] = lambda: None) -> None:
        """Do something, and let everything happen that follows without time."""
        self.run_until_complete(_follow(act))

    def pass_time(self, seconds: float) -> None:
        self.run_until_complete(asyncio.sleep(seconds))
        self.settle()


async def _follow(act: Callable[[], object]) -> None:
    act()
    for _ in range(12):
        await asyncio.sleep(0)


def simulated(main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` in such a loop."""
    loop = SimulatedLoop()
    try:
        answer = loop.run_until_complete(main(loop))
        assert not loop.accidents
        return answer
    finally:
        loop.close()
