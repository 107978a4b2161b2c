"""The page of errors has every class of evento.errors, nothing else, and says of each what the class says."""

import re

import pytest
from documents import DOCS

from evento import errors
from evento.consumers.failures import is_transient
from evento.errors import EventoError
from evento.gateway.requests import NOT_NOW

SECTIONS: dict[str, str] = dict(
    re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", (DOCS / "errors.md").read_text(), re.DOTALL | re.MULTILINE)
)
CLASSES: dict[str, type[EventoError]] = {
    name: value
    for name in errors.__all__
    if isinstance(value := getattr(errors, name), type) and issubclass(value, EventoError)
}


def test_each_class_has_its_section_and_nothing_else_has() -> None:
    assert set(SECTIONS) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_section_says_when_and_what_to_do(name: str) -> None:
    assert "**When**: " in SECTIONS[name]
    assert "**What to do**: " in SECTIONS[name]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_section_says_whether_it_is_definite(name: str) -> None:
    assert f"*Definite: {'yes' if CLASSES[name].definite else 'no'}.*" in SECTIONS[name]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_section_names_what_it_is_a_kind_of(name: str) -> None:
    [base] = CLASSES[name].__bases__

    assert re.findall(r"A kind of \[`(\w+)`\]", SECTIONS[name]) == (
        [] if base in {EventoError, Exception} else [base.__name__]
    )


def names_after(words: str) -> set[str]:
    """Return the names in the sentence of the page that begins with these words."""
    page = " ".join((DOCS / "errors.md").read_text().split())
    sentence = page.partition(words)[2].partition(";")[0].partition("is not definite")[0]
    return set(re.findall(r"`(\w+)`", sentence)) & set(CLASSES)


def test_the_page_names_the_errors_that_a_resend_makes_indefinite() -> None:
    assert names_after('An error that says "not now" (') == {cls.__name__ for cls in NOT_NOW}


def test_the_page_names_the_errors_that_are_transient_for_consumers() -> None:
    assert names_after("**Transient for consumers**") == {
        name for name in CLASSES if is_transient(CLASSES[name]("no"))
    } - {"StoreInUse", "SchemaTooNew", "StoreMismatch"}
