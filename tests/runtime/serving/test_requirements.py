"""Whether what was installed for a requirements file is what it asks for now."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from upwell.core.errors import SourceError
from upwell.pull_steps import PipInstallRequirements
from upwell.serving.pulling import Puller
from upwell.serving.requirements import read_requirements
from upwell.serving.source_cache import SourceCache


def test_files_that_a_file_names_count(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    main, base, bounds = tmp_path / "r.txt", tmp_path / "inner/base.txt", tmp_path / "inner/bounds.txt"
    main.write_text("numpy>=2\n-r inner/base.txt\n--requirement=https://example.org/r.txt\n")
    base.write_text("-c bounds.txt\nrequests\n-r ../r.txt\n")
    bounds.write_text("urllib3<3\n")
    first = read_requirements(main)
    assert first == read_requirements(main)
    assert not first.names_folders
    bounds.write_text("urllib3<2\n")
    assert read_requirements(main).digest != first.digest
    base.unlink()
    with pytest.raises(SourceError, match=r"There is no file base.txt in .*inner"):
        read_requirements(main)


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("-e .", True), ("--editable=./x", True), ("./lib", True), ("/lib", True), ("lib @ file:///lib", True),
        ("lib==1.0 # ./x", False), ("lib @ https://h/lib.whl", False), ("--find-links ./wheels", False),
    ],
)  # fmt: skip  # a table
def test_packages_that_stand_in_folders_are_seen(tmp_path: Path, line: str, is_one: bool) -> None:
    (tmp_path / "r.txt").write_text(f"requests\n{line}\n")
    assert read_requirements(tmp_path / "r.txt").names_folders is is_one


def test_a_package_of_a_folder_that_may_change_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("./lib\n")
    with pytest.raises(SourceError, match=r"Pull step 1 \(pip_install_requirements\) failed. .* stands in a folder"):
        asyncio.run(Puller(SourceCache(tmp_path / "cache")).pull([PipInstallRequirements()], tmp_path))
