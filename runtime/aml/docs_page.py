"""``/docs``: what is served, for people; one page of plain HTML without scripts. Pure.

Everything that comes from a model's file (names, properties) is foreign and escaped.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from hedgerow.contracts.model import TensorSpec
from runtime.models.loaded_model import LoadedModel
from runtime.models.model_words import how_to_make_one, infer_example, score_example
from runtime.models.providers import short_name
from runtime.tensors import describe

# Nothing is loaded and nothing runs, whatever a model's file says.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1d2733;background:#fff}"
    "h1,h2,h3{line-height:1.2}table{border-collapse:collapse;width:100%;table-layout:fixed}"
    "th,td{text-align:left;padding:.3rem .6rem;"
    "border-bottom:1px solid #d5dbe1;vertical-align:top;overflow-wrap:anywhere}"
    "tr>:first-child{width:30%}pre{background:#f3f5f7;padding:.8rem;overflow:auto;max-height:14rem;"
    "white-space:pre-wrap;"
    "overflow-wrap:anywhere;border-radius:4px}code{font-family:ui-monospace,monospace}a{color:#0b5cad}"
    "@media(prefers-color-scheme:dark){body{background:#14191f;color:#dfe6ee}pre{background:#1f262e}"
    "th,td{border-color:#37414c}a{color:#7db8f2}}"
)
_LONGEST = 600


def docs_page(
    title: str, address: str, models: Sequence[LoadedModel], *, score: LoadedModel | None, script: object | None
) -> str:
    """``score`` is the model behind /score; ``script`` an example of what the script behind it takes, as JSON values."""
    parts = [
        f"<h1>{escape(title)}</h1>",
        '<p><a href="/swagger.json?version=3.1">OpenAPI document</a> · <a href="/v2/health/ready">ready?</a> · '
        '<a href="/metrics">metrics</a></p>',
    ]
    if script is not None:
        parts += ["<h2>/score</h2>", _call(address, "/score", script)]
    for model in models:
        parts += _model(address, model, is_score=model is score)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>\n'


def _model(address: str, model: LoadedModel, *, is_score: bool) -> Iterable[str]:
    yield f"<h2>{escape(model.name)}, version {escape(model.version)}</h2>"
    yield f"<p>Runs on {escape(short_name(model.provider))}.</p>"
    yield _table("Inputs", model.inputs)
    if model.optional:
        yield _table("Inputs that may be left out", model.optional)
    yield _table("Outputs", model.outputs)
    yield "<h3>An example</h3>"
    path = f"/v2/models/{quote(model.name, safe='')}/infer"
    body, infer = score_example(model), infer_example(model)
    if body is None:
        yield f"<p>{escape(how_to_make_one(model))}</p>"
    elif is_score:
        yield _call(address, "/score", body)
    if infer is not None:
        yield _call(address, path, infer)
    elif body is not None:
        yield f"<p>FP16 has no form in JSON at <code>{escape(path)}</code>: use binary tensors there, as tritonclient does.</p>"
    if model.properties:
        rows = "".join(
            f"<tr><th>{escape(key)}</th><td>{escape(_short(value))}</td></tr>" for key, value in model.properties.items()
        )
        yield f"<h3>What its file says</h3><table>{rows}</table>"


def _table(title: str, specs: Sequence[TensorSpec]) -> str:
    rows = "".join(f"<tr><td><code>{escape(spec.name)}</code></td><td>{escape(describe(spec))}</td></tr>" for spec in specs)
    return f"<h3>{escape(title)}</h3><table>{rows or '<tr><td>none</td></tr>'}</table>"


def _call(address: str, path: str, body: object) -> str:
    command = f"curl {shlex.quote(address + path)} -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"
    return f"<pre><code>{escape(command)}</code></pre>"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
