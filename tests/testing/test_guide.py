"""The guide to testing tells the truth: its tests run and pass, and its failure reads as it says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/testing.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide")
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    file = folder / "test_of_the_guide.py"
    file.write_text("\n\n".join(blocks("python")))
    return file


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(300)
def test_every_test_passes(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name],
        cwd=file.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    tests = sum(block.count("def test_") for block in blocks("python"))

    assert done.returncode == 0, done.stdout
    assert f"{tests} passed" in done.stdout


@pytest.mark.timeout(300)
def test_mypy_finds_nothing_wrong(file: Path) -> None:
    output, errors, code = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache"), str(file)]
    )

    assert (code, errors) == (0, ""), output


def test_a_failure_reads_as_the_guide_says(file: Path) -> None:
    guide = load(file)
    try:
        outcome = guide.aggregate_test(guide.OrderAggregate).when(guide.OrderPlaceCommand("ORD_1", "ann", 12))
        with pytest.raises(AssertionError) as caught:
            outcome.expect(guide.OrderPlacedEvent("ORD_1", "ann", 13))
    finally:
        del sys.modules[guide.__name__]

    assert str(caught.value) == blocks("text")[0].rstrip()
