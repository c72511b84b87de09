"""The early check of a scoring source, with what is really there: files on disk, wheels of the environment, the base."""

from __future__ import annotations

from collections.abc import Iterable

from packager.bases.base_image import BaseImage
from packager.bases.base_modules import base_modules
from packager.cache.layers import LayerCache
from packager.scripts.check_script import check_script, imports_missing
from packager.scripts.module_names import top_level_modules
from packager.scripts.source_texts import SourceTexts
from packager.source_files import FoundFile


def check_source(
    files: Iterable[FoundFile], script: str, python_version: str, installed: Iterable[str], base: BaseImage, cache: LayerCache
) -> tuple[str, ...]:
    """Refuse a script that cannot work in its image; the answer is what may be missing, one sentence each.

    ``installed``: paths of the files of the environment's wheels, as they stand in their site folder. Raises ScriptBroken,
    ScriptIncomplete, ImportsMissing, UnreadableFile.
    """
    texts, available = SourceTexts(files), top_level_modules(installed)
    problems = check_script(texts, script, available, python_version)
    if imports_missing(problems) is not None:
        # Only now is it worth looking through the base.
        of_base = base_modules(base, cache)
        if of_base is None:
            return tuple(f"{problem} may be missing: the base image could not be looked through." for problem in problems)
        problems = check_script(texts, script, available | of_base, python_version)
    missing = imports_missing(problems)
    if missing is not None:
        raise missing
    return tuple(
        f"{problem} is missing, if it is ever imported; {problem.package or 'a file'} may have it." for problem in problems
    )
