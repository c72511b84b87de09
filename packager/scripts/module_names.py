"""Names of modules: which a Python brings, which our runtime stands in for, which files and which packages provide. Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping

# What left and entered the standard library, by the minor version of Python 3 in which it did.
_LEFT = {
    9: ("dummy_threading",),
    10: ("formatter", "parser", "symbol"),
    11: ("binhex",),
    12: ("asynchat", "asyncore", "distutils", "imp", "smtpd"),
    13: (
        *("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib"),
        *("ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
    ),
}
_CAME = {9: ("graphlib", "zoneinfo"), 11: ("tomllib",), 14: ("annotationlib", "compression")}

# What runtime/scripts/shims gives where Azure ML's own packages are not installed; a test compares the two.
_RAW = ("AMLRequest", "rawhttp")
_TYPES = "inference_schema.parameter_types"
_SERVER = "azureml_inference_server_http"
STAND_INS: Mapping[str, tuple[str, ...]] = {
    "azureml": (),
    "azureml.contrib": (),
    "azureml.contrib.services": (),
    "azureml.contrib.services.aml_request": _RAW,
    "azureml.contrib.services.aml_response": ("AMLResponse",),
    "azureml.core": ("Model",),
    "azureml.core.model": ("Model",),
    "azureml.monitoring": ("ModelDataCollector",),
    "azureml.monitoring.modeldatacollector": ("ModelDataCollector",),
    _SERVER: (),
    f"{_SERVER}.api": (),
    f"{_SERVER}.api.aml_request": _RAW,
    f"{_SERVER}.api.aml_response": ("AMLResponse",),
    f"{_SERVER}.log_config": ("AMLLogFormatter", "RootAccessFilter"),
    "inference_schema": (),
    "inference_schema.schema_decorators": ("input_schema", "output_schema"),
    "inference_schema.schema_util": (
        "get_input_schema",
        "get_output_schema",
        "get_schemas_dict",
        "get_supported_versions",
        "is_schema_decorated",
    ),
    _TYPES: (),
    f"{_TYPES}.abstract_parameter_type": ("AbstractParameterType",),
    f"{_TYPES}.standard_py_parameter_type": ("AbstractParameterType", "StandardPythonParameterType"),
    f"{_TYPES}.numpy_parameter_type": ("AbstractParameterType", "NumpyParameterType"),
    f"{_TYPES}.pandas_parameter_type": ("AbstractParameterType", "PandasParameterType"),
    f"{_TYPES}.spark_parameter_type": ("AbstractParameterType", "SparkParameterType"),
}

# Module -> package, where their names differ. Of dotted ones the longest that fits counts.
_PACKAGES = {
    "attr": "attrs",
    "azure.cosmos": "azure-cosmos",
    "azure.eventhub": "azure-eventhub",
    "azure.identity": "azure-identity",
    "azure.keyvault.secrets": "azure-keyvault-secrets",
    "azure.servicebus": "azure-servicebus",
    "azure.storage.blob": "azure-storage-blob",
    "azureml": "azureml-core",
    "azureml.automl": "azureml-automl-runtime",
    "azureml.dataprep": "azureml-dataprep",
    "azureml.interpret": "azureml-interpret",
    "azureml.train": "azureml-train-core",
    "bio": "biopython",
    "bs4": "beautifulsoup4",
    "crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "distutils": "setuptools",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "git": "gitpython",
    "google.auth": "google-auth",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "protobuf",
    "gi": "pygobject",
    "imblearn": "imbalanced-learn",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "ldap": "python-ldap",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "mysqldb": "mysqlclient",
    "openssl": "pyopenssl",
    "osgeo": "gdal",
    "paho": "paho-mqtt",
    "pil": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "serial": "pyserial",
    "shapefile": "pyshp",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skopt": "scikit-optimize",
    "snappy": "python-snappy",
    "snowflake": "snowflake-connector-python",
    "umap": "umap-learn",
    "usb": "pyusb",
    "win32api": "pywin32",
    "win32com": "pywin32",
    "wx": "wxpython",
    "xlsxwriter": "xlsxwriter",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
# Modules that packages had when Azure ML's examples were written, and no version with a wheel for our Pythons has -> instead.
_GONE = {
    "sklearn.cross_validation": "gone since scikit-learn 0.20: use sklearn.model_selection",
    "sklearn.externals.joblib": "gone since scikit-learn 0.23: write `import joblib`",
    "sklearn.externals.six": "gone since scikit-learn 0.23: write `import six`",
    "sklearn.grid_search": "gone since scikit-learn 0.20: use sklearn.model_selection",
    "tensorflow.contrib": "gone since TensorFlow 2.0",
}
_MODULE = re.compile(r"[^\W\d]\w*")
_CODE = (".py", ".so", ".pyc", ".pyi", ".pyd")


def standard_modules(python_version: str) -> frozenset[str]:
    """The top-level modules that come with a Python, whichever one this is."""
    minor = int(python_version.split(".")[1])
    names = set(sys.stdlib_module_names) | {name for left in _LEFT.values() for name in left}
    names |= {name for came in _CAME.values() for name in came}
    names -= {name for since, left in _LEFT.items() if since <= minor for name in left}
    return frozenset(names - {name for since, came in _CAME.items() if since > minor for name in came})


def left_standard_library(module: str, python_version: str) -> str | None:
    """`3.12` when that is since when the standard library has no longer had ``module``, and the target is that new."""
    minor = int(python_version.split(".")[1])
    return next((f"3.{since}" for since, names in _LEFT.items() if since <= minor and module in names), None)


def gone(module: str, names: Iterable[str] = ()) -> str:
    """What to write instead of a module that its package no longer has; empty for any other."""
    wanted = (module, *(f"{module}.{name}" for name in names))
    return next((words for one in wanted for old, words in _GONE.items() if one == old or one.startswith(f"{old}.")), "")


def stand_in_has(module: str, names: Iterable[str] = ()) -> bool:
    """Whether the runtime's stand-ins have ``module`` with all of ``names``."""
    if module not in STAND_INS:
        return False
    return all(name in STAND_INS[module] or name == "*" or f"{module}.{name}" in STAND_INS for name in names)


def top_level_modules(files: Iterable[str]) -> frozenset[str]:
    """What can be imported, given the '/'-separated paths of the files in a folder of `sys.path`."""
    found = set()
    for file in files:
        top, _, rest = file.partition("/")
        name = top if rest else top.partition(".")[0]
        if file.endswith(_CODE) and _MODULE.fullmatch(name):
            found.add(name)
    return frozenset(found)


def modules_of_base(paths: Iterable[str]) -> frozenset[str]:
    """What a base image's own Python can import beside its standard library, given the paths of the files in it."""
    parts = (re.split(r"(?:^|/)(?:site|dist)-packages/", path, maxsplit=1) for path in paths)
    return top_level_modules(part[1] for part in parts if len(part) == 2)


def package_of(module: str) -> str:
    """The package that probably provides ``module`` (dotted)."""
    parts = module.lower().split(".")
    for length in range(len(parts), 0, -1):
        if package := _PACKAGES.get(".".join(parts[:length])):
            return package
    return parts[0].replace("_", "-").strip("-") or module
