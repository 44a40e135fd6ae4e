"""Endpoints for the tests of faults: they do what a call tells them, and their answers show who gave them."""

import json

WHO = """
import os
import time
from pathlib import Path

from online_worker.endpoint import Endpoint


class WhoWorker(Endpoint):
    def load(self, content):
        with Path(__file__).with_name("loads.txt").open("a") as loads:
            loads.write(f"{os.getpid()}\\n")

    def predict(self, prepared):
        time.sleep(prepared.get("seconds", 0))
        while prepared.get("hang"):
            time.sleep(0.1)
        while prepared.get("spin"):
            pass
        return {"pid": os.getpid(), "tag": prepared.get("tag")}
"""
"""Each answer names its process. ``seconds`` makes a call long, ``hang`` and ``spin`` for ever; loads are written down."""

NUMBERED = """
import json
import time
from pathlib import Path

from online_worker.endpoint import Endpoint


class NumberedWorker(Endpoint):
    def load(self, content):
        data = content.read_bytes()
        told = json.loads(data[: data.index(b"\\n")])
        self.number, self.data = told["number"], data
        Path(__file__).with_name("loading.txt").write_text(str(self.number))
        while told["waits"] and not Path(__file__).with_name("go_on.txt").exists():
            time.sleep(0.01)
        if told["refused_by"] and told["refused_by"] in self.context.worker_id:
            raise ValueError("these weights are not for me")

    def preprocess(self, inputs):
        return {"before": self.number}

    def predict(self, prepared):
        return {**prepared, "during": self.number}

    def postprocess(self, prediction):
        return {**prediction, "after": self.number}
"""
"""Each step of a call adds the number of the content that it finds; see :func:`numbered_content`."""


def numbered_content(number: int, size: int = 0, *, refused_by: str = "", waits: bool = False) -> bytes:
    """Content for NUMBERED.

    ``refused_by``: a worker with this in its id does not load it. ``waits``: it is not loaded before there is a file
    go_on.txt in the workers' folder.
    """
    told = {"number": number, "refused_by": refused_by, "waits": waits}
    return json.dumps(told).encode() + b"\n" + bytes(size)
