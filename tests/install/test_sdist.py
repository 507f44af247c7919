"""The source distribution holds what is needed to build, run and deploy, and the wheel made from it is the wheel."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import relay

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("Dockerfile", ".dockerignore", "docker-compose.yaml", "Makefile", "README.md", "CHANGELOG.md", "LICENSE")
# One worker builds them once.
pytestmark = [pytest.mark.xdist_group("sdist"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds both, as hatchling builds them."""
    place = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(place), cwd=ROOT)
    return place


def run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def sdist(built: Path) -> tarfile.TarFile:
    (file,) = built.glob("*.tar.gz")
    return tarfile.open(file)


def wheel(place: Path) -> zipfile.ZipFile:
    (file,) = place.glob("*.whl")
    return zipfile.ZipFile(file)


def of_this_checkout(folder: str) -> set[str]:
    """Files of a folder, without what tools leave there."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_the_sources_are_whole(built: Path) -> None:
    """What is deployed and what the documents name is there, and nothing that a build or a test left behind."""
    with sdist(built) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert set(NEEDED) <= names
    for folder in ("deploy", "migrations", "docs"):
        assert of_this_checkout(folder) <= names
    assert "relay/py.typed" in names
    assert [name for name in names if name.endswith((".pyc", ".db", ".key", ".pem")) or "/.venv" in name] == []


def test_the_wheel_of_the_sources_is_the_wheel(built: Path, tmp_path: Path) -> None:
    """Whoever installs from the sources gets the same files."""
    (source,) = built.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q")
    run(
        *pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path), str(source), cwd=tmp_path
    )
    with wheel(built) as ours, wheel(tmp_path) as theirs:
        assert {one.filename: one.CRC for one in ours.infolist()} == {
            one.filename: one.CRC for one in theirs.infolist()
        }


def test_the_metadata_is_valid(built: Path) -> None:
    """In both, by the rules of the package index; the README is what is shown there."""
    with sdist(built) as file, wheel(built) as other:
        (inside,) = [name for name in other.namelist() if name.endswith("/METADATA")]
        member = next(one for one in file.getmembers() if one.name.count("/") == 1 and one.name.endswith("/PKG-INFO"))
        content = file.extractfile(member)
        assert content is not None
        texts = [content.read(), other.read(inside)]
        (points,) = [name for name in other.namelist() if name.endswith("/entry_points.txt")]
        said = other.read(points).decode()
    for text in texts:
        told = Metadata.from_email(text, validate=True)
        assert (told.name, str(told.version)) == ("tunnel-relay", relay.__version__)
        assert BytesParser().parsebytes(text)["Description-Content-Type"] == "text/markdown"
        assert {one.name for one in told.requires_dist or [] if one.marker is None} >= {"pyyaml", "prometheus-client"}
    commands = dict(line.split(" = ") for line in said.splitlines()[1:] if line)
    assert commands.keys() == {"relay", "mytunnel"}
    assert len(set(commands.values())) == 1
