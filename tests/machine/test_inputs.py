"""Files of every kind that is no file, and JSON of every kind that is too much: one sentence, at once, never code."""

import ast
import json
import os
import socket
import stat
import string
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import iquitos_rl
from iquitos_rl.assignments import YAML_DEPTH, YAML_VALUES, read_value, read_yaml
from iquitos_rl.errors import UserError
from iquitos_rl.machine import inputs
from iquitos_rl.machine.inputs import InputError, json_value, read_bytes, read_json, read_text, read_typed

ROOT = Path(iquitos_rl.__file__).parent
EXAMPLES = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def pipe(path):
    os.mkfifo(path)


def bound_socket(path):
    before = os.getcwd()
    os.chdir(path.parent)  # a socket's whole name must be short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


NO_FILES = {
    "folder": lambda path: path.mkdir(),
    "pipe": pipe,
    "socket": bound_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "null device": lambda path: path.symlink_to("/dev/null"),
    "terminal": lambda path: path.symlink_to("/dev/ptmx"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
    "link to a pipe": lambda path: (pipe(path.with_suffix(".pipe")), path.symlink_to(path.with_suffix(".pipe"))),
}
READERS = {"bytes": read_bytes, "text": read_text, "json": read_json, "yaml": read_yaml}


@pytest.mark.skipif(os.name == "nt", reason="other kinds of files there")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_at_once(tmp_path, kind, reader):
    path = tmp_path / "file.json"
    NO_FILES[kind](path)
    with pytest.raises(InputError, match=r"file\.json cannot be read") as error:
        READERS[reader](path)
    assert error.value.missing == (kind == "link to nothing")


@pytest.mark.parametrize("name", ["a" * 5000, "nul\0inside", "half \ud800 a character", "/dev/null/file", ""])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    with pytest.raises(InputError) as error:
        read_bytes(str(tmp_path) + "/" + name if name else tmp_path)
    assert len(str(error.value)) < 1000
    str(error.value).encode()


@EXAMPLES
@given(st.integers(0, 300), st.integers(0, 300), st.booleans())
def test_no_more_than_asked_for_is_read(tmp_path, size, most, cut):
    path = tmp_path / "file"
    path.write_bytes(bytes(n % 251 for n in range(size)))
    if size <= most or cut:
        assert read_bytes(path, most, cut) == path.read_bytes()[:most]
    else:
        with pytest.raises(InputError, match="MiB"):
            read_bytes(path, most)


def test_a_file_of_holes_takes_no_memory(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="at most"):
        read_bytes(tmp_path / "file", inputs.TENSOR_BYTES)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux's files without a size")
def test_a_file_that_does_not_tell_its_size_is_read_whole():
    assert read_text("/proc/self/status").startswith("Name:")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@EXAMPLES
@given(plain)
def test_json_within_the_bounds_is_read_as_it_is(tmp_path, value):
    (tmp_path / "file").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    assert read_json(tmp_path / "file") == value


@EXAMPLES
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789eE+-.nulltrfas\\ud8', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    for reader in READERS.values():
        try:
            reader(tmp_path / "file")
        except UserError as error:
            text = str(error)
            assert text.isprintable()
            text.encode()


@EXAMPLES
@given(st.integers(1, 100_000), st.sampled_from(["[", '{"a":', '[{"b":[']), st.booleans())
def test_depth_is_bounded(levels, opening, closed):
    closing = "".join({"[": "]", "{": "}"}.get(c, "") for c in reversed(opening))
    text, deep = opening * levels + "1" + closing * levels * closed, levels * len(closing)
    if closed and deep < inputs.DEPTH:
        assert json.dumps(json_value(text), separators=(",", ":")) == text
    else:
        with pytest.raises(ValueError, match=r"nested|Expecting"):
            json_value(text)


@EXAMPLES
@given(st.integers(1, 6000), st.sampled_from(["", "-"]), st.sampled_from([read_value, json_value]))
def test_digits_are_bounded(digits, sign, reader):
    text = sign + "7" * digits
    if digits + (len(sign) if reader is read_value else 0) <= inputs.DIGITS - 1:
        assert reader(text) == int(text)
    elif digits > inputs.DIGITS:
        with pytest.raises(ValueError, match="digits"):
            reader(text)


def test_the_number_of_values_is_bounded(monkeypatch):
    monkeypatch.setattr(inputs, "VALUES", 50)
    assert json_value(json.dumps([0] * 40))
    with pytest.raises(ValueError, match="more than 50 values"):
        json_value(json.dumps([0] * 60))


half = st.integers(0xD800, 0xDFFF).map(lambda n: f"\\u{n:04x}")


@EXAMPLES
@given(half, st.sampled_from(['"%s"', '{"%s": 1}', '[[{"a": ["%s"]}]]']))
def test_text_that_cannot_be_written_is_not_read(code, shape):
    for reader in (json_value, read_value):
        with pytest.raises(ValueError, match="no Unicode") as error:
            reader(shape % code)
        str(error.value).encode()


@st.composite
def anchored(draw):
    """YAML in which lists name each other again, forwards only, and how many values and levels they stand for."""
    count, sizes = draw(st.integers(1, 60)), [(1, 0)]
    lines = ["- &n0 x"]
    for n in range(1, count + 1):
        names = draw(st.lists(st.integers(max(0, n - 4), n - 1), min_size=1, max_size=3))
        lines.append(f"- &n{n} [{', '.join(f'*n{m}' for m in names)}]")
        sizes.append((1 + sum(sizes[m][0] for m in names), 1 + max(sizes[m][1] for m in names)))
    return "\n".join(lines), 1 + sum(size for size, _ in sizes), 1 + max(depth for _, depth in sizes)


@EXAMPLES
@given(anchored())
def test_aliases_count_as_what_they_stand_for(example):
    text, values, levels = example
    if values <= YAML_VALUES and levels <= YAML_DEPTH:
        assert len(repr(read_value(text))) < 10 * YAML_VALUES + 1000
    else:
        with pytest.raises(ValueError, match=r"levels deep|more than"):
            read_value(text)


@EXAMPLES
@given(st.integers(1, 5), st.integers(0, 5))
def test_a_list_inside_itself_is_refused(before, after):
    inner = ", ".join(["1"] * before + ["*a"] + ["2"] * after)
    for text in (f"&a [{inner}]", f"x: &a {{y: [{inner}]}}"):
        with pytest.raises(ValueError, match="levels deep"):
            read_value(text)


tags = st.sampled_from(
    [
        *("!!python/object/apply:os.system", "!!python/name:os.system", "!!binary", "!!set", "!!omap", "!!pairs"),
        *("!!timestamp", "!!merge", "!x", "!<tag:evil>", "!!int", "!!float", "!!bool", "!!null"),
    ]
)


@EXAMPLES
@given(tags, st.text(alphabet=string.printable, max_size=12) | st.sampled_from(["2020-13-45", "[a]", "{a: b}", "0x_"]))
def test_tags_make_plain_values_or_nothing(tag, text):
    try:
        value = read_value(f"{tag} {text}")
    except ValueError:
        return
    assert value is None or isinstance(value, (bool, int, float, str, list, dict))


class Kept(NamedTuple):
    step: int
    figures: dict[str, float]


@EXAMPLES
@given(plain)
def test_what_is_read_has_its_type_or_is_refused(tmp_path, value):
    assume(not (isinstance(value, list) and len(value) == 2))  # [0, {}] is one
    (tmp_path / "file").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(InputError, match="is not such a file"):
        read_typed(tmp_path / "file", Kept)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_infinite_number_is_read(tmp_path, number):
    (tmp_path / "file").write_text(f'{{"step": 1, "figures": {{"x": {number}}}}}', encoding="utf-8")
    with pytest.raises(InputError, match="is no finite number"):
        read_typed(tmp_path / "file", Kept)
    (tmp_path / "file").write_text('{"step": 1, "figures": {"x": 2}}', encoding="utf-8")
    assert read_typed(tmp_path / "file", Kept) == Kept(1, {"x": 2.0})


OWN = ("machine/inputs.py", "machine/available.py")  # the kernel's files


def reads(source: str) -> list[str]:
    """Calls in a source that read a file by its name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        first = ast.unparse(node.args[0]) if node.args else ""
        modes = {argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)}
        opens = name == "open" and owner != "os" and not modes & {"w", "wb", "a", "x", "xb"}
        if (
            opens
            or (name in ("read_text", "read_bytes") and owner)
            or (owner == "json" and name in ("load", "loads"))
            or (
                name in ("read_csv", "load", "load_file", "safe_open")
                and owner in ("pd", "torch", "np")
                and "BytesIO" not in first
            )
        ):
            found.append(ast.unparse(node))
    return found


def test_no_module_reads_files_in_a_way_of_its_own():
    found = {str(path.relative_to(ROOT)): reads(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")}
    assert {name: calls for name, calls in found.items() if calls and not name.startswith(OWN)} == {}
    assert reads("path.read_text()") == ["path.read_text()"]
    assert reads("open(x)\njson.load(f)\npd.read_csv(p)\npath.open('w')\npd.read_csv(io.BytesIO(b))") == [
        *("open(x)", "json.load(f)", "pd.read_csv(p)")
    ]


def test_the_kinds_of_files_are_named(tmp_path):
    assert set(inputs.KINDS) == {stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFLNK}
    with pytest.raises(InputError, match="it is a folder, not a file"):
        read_bytes(tmp_path)
