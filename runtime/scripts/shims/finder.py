"""Makes the shims importable under the names that scripts use, in a script's process only and after everything installed.

It stands last on ``sys.meta_path``: whatever the image really has was found before. A child of a package that is really
installed is not ours to add, but for ``azureml``, which is a namespace that many packages share. One thing of an installed
package is changed: azureml-core looks for models in a folder of Azure's images, and is told where they are here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_HERE = __package__
_SERVER = "azureml_inference_server_http"
_TYPES = "inference_schema.parameter_types"
_RAW = ("AMLRequest", "rawhttp")

# Name that scripts import -> our module and what it gives; a package without anything of its own has no module.
MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "azureml": ("", ()),
    "azureml.contrib": ("", ()),
    "azureml.contrib.services": ("", ()),
    "azureml.contrib.services.aml_request": ("raw_http", _RAW),
    "azureml.contrib.services.aml_response": ("raw_http", ("AMLResponse",)),
    "azureml.core": ("model_paths", ("Model",)),
    "azureml.core.model": ("model_paths", ("Model",)),
    "azureml.monitoring": ("data_collector", ("ModelDataCollector",)),
    "azureml.monitoring.modeldatacollector": ("data_collector", ("ModelDataCollector",)),
    _SERVER: ("", ()),
    f"{_SERVER}.api": ("", ()),
    f"{_SERVER}.api.aml_request": ("raw_http", _RAW),
    f"{_SERVER}.api.aml_response": ("raw_http", ("AMLResponse",)),
    f"{_SERVER}.log_config": ("log_classes", ("AMLLogFormatter", "RootAccessFilter")),
    "inference_schema": ("", ()),
    "inference_schema.schema_decorators": ("schema", ("input_schema", "output_schema")),
    "inference_schema.schema_util": (
        "schema",
        ("get_input_schema", "get_output_schema", "get_schemas_dict", "get_supported_versions", "is_schema_decorated"),
    ),
    _TYPES: ("", ()),
    f"{_TYPES}.abstract_parameter_type": ("schema_types", ("AbstractParameterType",)),
    f"{_TYPES}.standard_py_parameter_type": ("schema_types", ("AbstractParameterType", "StandardPythonParameterType")),
    f"{_TYPES}.numpy_parameter_type": ("schema_numpy", ("AbstractParameterType", "NumpyParameterType")),
    f"{_TYPES}.pandas_parameter_type": ("schema_pandas", ("AbstractParameterType", "PandasParameterType")),
    f"{_TYPES}.spark_parameter_type": ("schema_spark", ("AbstractParameterType", "SparkParameterType")),
}
_PACKAGES = frozenset(name.rpartition(".")[0] for name in MODULES)


class ShimFinder(MetaPathFinder, Loader):
    """Finder and loader of the names in MODULES."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in MODULES or not self._may_add(fullname):
            return None
        return ModuleSpec(fullname, self, origin="hedgerow", is_package=fullname in _PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        source, names = MODULES[module.__name__]
        if source:
            ours = importlib.import_module(f"{_HERE}.{source}")
            vars(module).update({name: getattr(ours, name) for name in names})

    def _may_add(self, fullname: str) -> bool:
        if not fullname.startswith("azureml.") and "." in fullname:
            above = sys.modules.get(fullname.rpartition(".")[0])
            return getattr(getattr(above, "__spec__", None), "loader", None) is self
        return True


class InstalledModel(MetaPathFinder):
    """Stands first: an installed azureml-core keeps its ``Model``, whose ``get_model_path`` becomes ours."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "azureml.core.model":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _OurModelPaths(spec.loader)
        return spec


class _OurModelPaths(Loader):
    """The loader of the installed module, and then the change."""

    def __init__(self, installed: Loader) -> None:
        self._installed = installed

    def __getattr__(self, name: str) -> object:
        return getattr(self._installed, name)  # what inspect and linecache ask of a loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._installed.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._installed.exec_module(module)
        ours = importlib.import_module(f"{_HERE}.model_paths")
        if installed := vars(module).get("Model"):
            installed.get_model_path = staticmethod(ours.Model.get_model_path)


def install_shims() -> None:
    """Put the finders on sys.meta_path, once."""
    if not any(isinstance(finder, ShimFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, InstalledModel())
        sys.meta_path.append(ShimFinder())
