"""The one grammar of `--set` and of YAML files."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError
from setting_fields import MODELS, fields

from iquitos_rl.assignments import merge, parse_assignments, read_value, read_yaml, validate, write_layer, write_value
from iquitos_rl.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("off", "on", "yes", "no", "12:30", "2024-01-31", "1_000", "<<", "0b1")),
        *((word, None) for word in ("", "~", "null")),
        ("true", True),
        ("False", False),
        ("1e3", 1000.0),
        ("-2.5E-1", -0.25),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("+5", 5),
        ("'1e3'", "1e3"),
        ("[1, 2e1, off]", [1, 20.0, "off"]),
        ("{pv: {model: documented}}", {"pv": {"model": "documented"}}),
    ],
)
def test_words_and_numbers_are_those_of_yaml_1_2(text, value):
    found = read_value(text)
    assert (found, type(found)) == (value, type(value))


class Kinds(BaseModel):
    model_config = ConfigDict(extra="forbid")
    flag: bool = True
    count: int = 1
    rate: float = 1.0
    word: str = ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((f"flag={word}", False) for word in ("off", "no", "false", "0")),
        *((f"flag={word}", True) for word in ("on", "yes", "true", "1")),
        *((f"word={word}", word) for word in ("off", "yes", "1_000", "2024-01-31", "a=b")),
        ("count=1e3", 1000),
        ("count=1_000", 1000),
        ("rate=1e-5", 1e-5),
        ("rate=3", 3.0),
    ],
)
def test_a_setting_decides_what_a_word_means(text, expected):
    (found,) = validate(Kinds, parse_assignments([text]), "").model_dump(include={text.partition("=")[0]}).values()
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count=1.5e0", "count = 1.5: input should be a valid integer"),
        ("rate=off", "rate = 'off': input should be a valid number"),
        ("flag=maybe", "flag = 'maybe': input should be a valid boolean"),
        ("word=1e3", "word = 1000.0: input should be a valid string"),
        ("wrd=1", "wrd is not a setting; did you mean word?"),
    ],
)
def test_a_value_of_another_kind_is_one_sentence(text, message):
    with pytest.raises(UserError) as error:
        validate(Kinds, parse_assignments([text]), "")
    assert str(error.value).startswith(message)


def test_assignments_nest_and_read_values_as_yaml():
    layer = parse_assignments(["a.b=1", "a.c=[1, 2]", "d=null", "e=x=y"])
    assert layer == {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": "x=y"}


def test_merge_does_not_change_its_arguments():
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert merge(base, over) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "!!python/x y",
        "!!bool x",
        "!!float ''",
        "!!timestamp x",
        "{[1]: 2}",
        "a: b: c",
        "\0",
        "9" * 5000,
        "[" * 9999,
    ],
)
def test_what_is_no_value_is_said_in_one_line(text):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_value(text)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="the value is not valid YAML"):
        parse_assignments([f"key={text}"])


def nested(number):
    plain = st.none() | st.booleans() | st.integers() | number | st.text()
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    )


values, finite = nested(st.floats(allow_nan=False)), nested(st.floats(allow_nan=False, allow_infinity=False))


@given(values)
def test_any_value_is_read_as_it_was_written(value):
    assert read_value(write_value(value)) == value


@given(st.dictionaries(st.text(), values, max_size=3))
def test_any_layer_is_read_as_it_was_written_and_by_yaml_1_1_too(layer):
    text = write_layer(layer)
    assert read_value(text) == layer
    assert yaml.safe_load(text) == layer


SETTINGS = [(model, *place) for model in MODELS for place in fields(model)]


@pytest.mark.parametrize(("model", "owner", "name", "key"), SETTINGS, ids=[f"{s[0].__name__}.{s[3]}" for s in SETTINGS])
def test_any_value_of_any_setting_survives_being_printed_and_set(model, owner, name, key):
    """Values of the field's own type, as far as the model takes them."""
    annotation = owner.model_fields[name].annotation

    @given(st.from_type(annotation) if annotation != dict[str, Any] else st.dictionaries(st.text(), finite))
    def check(value: object) -> None:
        try:
            settings = owner.model_validate({name: value})
        except ValidationError:
            return
        printed = write_value(settings.model_dump(mode="json")[name])
        layer = parse_assignments([f"{key}={printed}"])
        for part in key.split(".")[:-1]:
            layer = layer[part]
        assert getattr(owner.model_validate(layer), name) == getattr(settings, name)

    check()


def test_a_file_of_settings_is_read_by_the_same_rules(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("amp: off\nrate: 1e-3\n", encoding="utf-8")
    assert read_yaml(path) == {"amp": "off", "rate": 0.001}
