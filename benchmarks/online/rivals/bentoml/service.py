"""The sum under BentoML: ``bentoml serve service:Sum --port PORT``."""

import bentoml


@bentoml.service(workers=2, metrics={"enabled": False}, logging={"access": {"enabled": False}})  # type: ignore[misc]
class Sum:
    """Adds two numbers."""

    @bentoml.api  # type: ignore[misc]
    def add(self, a: float, b: float) -> dict[str, float]:
        """Give the sum."""
        return {"result": a + b}
