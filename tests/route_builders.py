"""Strategies that make expressions of the route language, also ones that no type check would let through."""

from __future__ import annotations

from hypothesis import strategies as st

from hedgerow.contracts.routes.tree import (
    LEVELS,
    Binary,
    BodyPath,
    Call,
    Constant,
    Expression,
    Property,
    SystemProperty,
    TwinChange,
    Unary,
    Undefined,
)
from hedgerow.contracts.routes.types import FUNCTIONS

NAMES = ["a", "b-c", "temp.max", "Key_1", "x%", "e5", "2nd", "äöü"]
_STEPS = st.tuples(st.sampled_from(["a", "b", "c-d"]), st.sampled_from(["a", 0, 1, "x"]))
_OPERATORS = sorted({operator for level in LEVELS for operator in level} - {"<>"})


def leaves() -> st.SearchStrategy[Expression]:
    return st.one_of(
        st.builds(
            Constant, st.none() | st.booleans() | st.text(max_size=8) | st.floats(allow_nan=False) | st.integers(-5, 5).map(float)
        ),
        st.just(Undefined()),
        st.builds(Property, st.sampled_from(NAMES)),
        st.builds(SystemProperty, st.sampled_from(["a", "contentType", "body"]), st.booleans()),
        st.builds(BodyPath, _STEPS, st.booleans()),
        st.builds(BodyPath, st.just((0, "a")), st.booleans()),
        st.builds(TwinChange, st.just(("tags", "a"))),
    )


def expressions() -> st.SearchStrategy[Expression]:
    """Any tree; most of them compare what cannot be compared."""
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.builds(Unary, st.sampled_from(["-", "not"]), inner),
            st.builds(Binary, st.sampled_from(_OPERATORS), inner, inner),
            st.builds(Call, st.sampled_from(sorted(FUNCTIONS)), st.lists(inner, min_size=1, max_size=3).map(tuple)),
        ),
        max_leaves=12,
    )


def _numbers() -> st.SearchStrategy[Expression]:
    simple = st.builds(Constant, st.floats(allow_nan=False)) | st.builds(BodyPath, _STEPS, st.booleans())
    return st.recursive(
        simple | st.builds(Call, st.just("as_number"), st.builds(Property, st.sampled_from(NAMES)).map(lambda one: (one,))),
        lambda inner: (
            st.builds(Binary, st.sampled_from(["+", "-", "*", "/", "%"]), inner, inner) | st.builds(Unary, st.just("-"), inner)
        ),
        max_leaves=6,
    )


def _texts() -> st.SearchStrategy[Expression]:
    simple = st.builds(Constant, st.text(max_size=8)) | st.builds(Property, st.sampled_from(NAMES))
    return st.recursive(
        simple | st.builds(SystemProperty, st.sampled_from(["a", "connectionModuleId"]), st.booleans()),
        lambda inner: (
            st.builds(Binary, st.sampled_from(["||", "??"]), inner, inner)
            | st.builds(Call, st.just("lower"), inner.map(lambda one: (one,)))
        ),
        max_leaves=5,
    )


def conditions() -> st.SearchStrategy[Expression]:
    """Trees that the language takes: logic over comparisons."""
    compare = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
    facts = st.one_of(
        st.builds(Binary, compare, _numbers(), _numbers()),
        st.builds(Binary, compare, _texts(), _texts()),
        st.builds(Call, st.just("is_defined"), _texts().map(lambda one: (one,))),
        st.builds(TwinChange, st.just(("properties", "desired", "a", 0))),
        st.builds(Constant, st.booleans() | st.none()),
    )
    return st.recursive(
        facts,
        lambda inner: st.builds(Binary, st.sampled_from(["and", "or"]), inner, inner) | st.builds(Unary, st.just("not"), inner),
        max_leaves=8,
    )
