"""The sum under LitServe: ``python serve.py PORT``."""

import sys
from typing import Any

import litserve


class Sum(litserve.LitAPI):  # type: ignore[misc]
    """Adds two numbers."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def predict(self, inputs: dict[str, Any]) -> dict[str, float]:
        """Give the sum."""
        return {"result": inputs["a"] + inputs["b"]}


if __name__ == "__main__":
    server = litserve.LitServer(Sum(), accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
