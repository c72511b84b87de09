"""What Azure ML's environments ask for and an image here has in another form. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from packager.environment.package_names import name_of

# The scoring server of Azure ML with everything around it: 68 packages, some of which no longer import with today's setuptools.
_REPLACED = frozenset({"azureml-defaults", "azureml-inference-server-http"})


def without_server(requirements: Iterable[str]) -> tuple[list[str], list[str]]:
    """``requirements`` without the packages that are Azure ML's scoring server, and a note for a person where there were some.

    What scripts import of them the runtime brings (runtime/scripts/shims). Whoever needs more names it: azureml-core.
    """
    asked = list(requirements)
    kept = [requirement for requirement in asked if name_of(requirement) not in _REPLACED]
    if len(kept) == len(asked):
        return kept, []
    left_out = ", ".join(requirement for requirement in asked if requirement not in kept)
    note = (
        f"{left_out} is left out: the image has a scoring server and Azure ML's imports for scoring; "
        "ask for azureml-core where the script needs more"
    )
    return kept, [note]
