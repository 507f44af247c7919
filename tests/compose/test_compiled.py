"""The image with the rooms of the data path compiled: built as the page says, and it serves."""

from __future__ import annotations

import pytest

from tests.compose.engine import COMPILED_IMAGE, Stack, build, docker

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]


def test_an_image_may_be_compiled() -> None:
    """It says that it is, holds no compiler, and a relay of it comes up, healthy, behind Caddy."""
    build("relay", image=COMPILED_IMAGE, RELAY_COMPILED="1")
    assert "(compiled)" in docker("run", "--rm", COMPILED_IMAGE, "--version")
    look = "import shutil; print(shutil.which('gcc'))"
    assert docker("run", "--rm", "--entrypoint", "python", COMPILED_IMAGE, "-c", look) == "None\n"
    with Stack(extra={"RELAY_IMAGE": COMPILED_IMAGE}) as stack:
        stack.up()
        assert "healthy" in stack("ps")
