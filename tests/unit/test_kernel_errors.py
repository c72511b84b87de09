"""Errors: whose fault, what happened, what to do."""

from __future__ import annotations

import pytest

from hedgerow import errors
from hedgerow.errors import HedgerowError, InvalidName, MissingExtra, UserError


class _Sample(UserError):
    key = "sample"
    message = "{what} is wrong."
    remedy = "Mend {what}."


def test_message_and_advice_carry_the_values() -> None:
    error = _Sample(what="the gate")
    assert str(error) == "the gate is wrong."
    assert error.advice == "Mend the gate."
    assert error.sentence() == "the gate is wrong. Mend the gate."
    assert error.fields == {"what": "the gate"}


@pytest.mark.parametrize("nasty", ["{what}", "{0}", "{", "}", "%s", "a\nb", "{what.__class__}"])
def test_values_are_never_read_as_templates(nasty: str) -> None:
    assert _Sample(what=nasty).sentence() == f"{nasty} is wrong. Mend {nasty}."


def test_a_forgotten_field_fails_at_once() -> None:
    with pytest.raises(KeyError):
        _Sample()


def test_families_tell_whose_fault_it_is() -> None:
    assert issubclass(errors.NotFoundError, errors.UserError)
    assert issubclass(errors.ForbiddenError, errors.AccessError)
    for family in (
        errors.UserError,
        errors.AccessError,
        errors.ConflictError,
        errors.UnavailableError,
        errors.ScriptError,
        errors.Bug,
    ):
        assert issubclass(family, HedgerowError)
    assert not issubclass(errors.Bug, errors.UserError)


def test_kernel_errors_name_value_and_remedy() -> None:
    assert InvalidName(kind="model", value="A b").sentence() == (
        "model name 'A b' is not allowed. Use 1 to 128 of a-z and 0-9; words may be joined with one '.', one or two '_', or '-'."
    )
    assert "pip install 'hedgerow[server]'" in MissingExtra(what="up", module="flask", extra="server").advice
