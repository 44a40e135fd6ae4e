"""documentation/how_to/deploy.md, executed: a person who types it in has a working HTTPS server."""

import re
import zipfile

from tests.support.stack import PAGE, Deployment


def test_the_page_leads_to_a_segmented_slice(deployment: Deployment) -> None:
    said = {block.commands: block.output for block in deployment.blocks}
    last_commands = next(commands for commands in said if "infer run" in commands)

    assert "finished after" in said[last_commands]
    with zipfile.ZipFile(deployment.folder / "out.zip") as output:
        assert set(output.namelist()) == {"body_mask.nii.gz", "overlay.png", "report.json"}


def test_the_server_answers_what_the_page_shows(deployment: Deployment) -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"^```json\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    asked = next(block for block in deployment.blocks if "https://localhost/health/ready" in block.commands)

    assert shown is not None
    assert asked.output.strip() == shown[1]


def test_an_uploaded_model_answers_what_the_page_shows(deployment: Deployment) -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^```json\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)[-1]
    asked = next(block for block in deployment.blocks if "/prediction" in block.commands)

    assert asked.output.strip() == shown


def test_every_command_of_the_page_was_run(deployment: Deployment) -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert len(deployment.blocks) == page.count("```sh\n")
    assert page.count("```bash\n") == page.count("<!-- not run by the test:")
