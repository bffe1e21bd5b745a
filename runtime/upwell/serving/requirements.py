"""What a requirements file asks for: is what was installed for it once what it asks for now?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from upwell.core.errors import SourceError

_OTHER_FILE: Final = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]*([^\s#]+)")
_OF_A_FOLDER: Final = re.compile(r"\s*(?:-e|--editable|\.|/|file:|[^#]*@\s*file:)")


class Requirements(NamedTuple):
    """digest: of the file and of those that it names. names_folders: it asks for packages that stand in folders."""

    digest: str
    names_folders: bool


def read_requirements(file: Path) -> Requirements:
    """What is asked for.

    Raises:
        SourceError: the file, or one that it names, is not there.
    """
    texts = list(_texts(file, set()))
    digest = blake2b("\0".join(texts).encode(), digest_size=12).hexdigest()
    return Requirements(digest, any(_OF_A_FOLDER.match(line) for text in texts for line in text.splitlines()))


def _texts(file: Path, seen: set[Path]) -> Iterator[str]:
    if file.resolve() in seen:
        return
    seen.add(file.resolve())
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise SourceError(f"There is no file {file.name} in {file.parent}.") from None
    yield text
    for line in text.splitlines():
        if (other := _OTHER_FILE.match(line)) is not None and "://" not in other[1]:
            yield from _texts(file.parent / other[1], seen)
