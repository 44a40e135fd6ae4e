"""A consumer whose card is not there: it stays, lives, and says so where people look."""

from pathlib import Path

from job_consumer import alive
from tests.support.hostile_models import zip_of
from tests.support.platform import START_SECONDS, PlatformMaker, Service
from tests.support.waiting import eventually

NO_SUCH_CARD = "99"


def test_whoever_waits_for_a_card_that_is_missing_is_told_so(make_platform: PlatformMaker, tmp_path: Path) -> None:
    platform = make_platform()
    environment = {
        "INTERNAL_TOKEN": platform.token,
        "PRIVATE_API_URL": platform.private_url,
        "SCRATCH_DIR": str(tmp_path / "scratch"),
        "GPU_INDEX": NO_SUCH_CARD,
        "TMPDIR": str(tmp_path),
    }
    with platform.client() as client:
        client.add_model("needs-a-gpu", "image:1", use_gpu=True)
        uid = client.submit("needs-a-gpu", zip_of(tmp_path / "input.zip", {"file": "content"}))
        nobody = client.status(uid).waiting_for
        consumer = Service("consumer", "job_consumer", environment, tmp_path / "consumer.log")
        try:
            told = eventually(
                lambda: (client.status(uid).waiting_for or "").partition("No consumer can work now. ")[2], START_SECONDS
            )
            trouble = alive.trouble(consumer.process.pid, tmp_path)
        finally:
            status = consumer.stop()

    assert nobody is not None
    assert "No consumer is connected" in nobody
    assert told.startswith(("No NVIDIA driver is loaded on this host", f"GPU_INDEX {NO_SUCH_CARD}: "))
    assert trouble is None
    assert status == 0
