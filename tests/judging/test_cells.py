"""Names from anywhere in files for spreadsheets, Markdown and TensorBoard: shown, and nothing else."""

import csv
import io
import string

import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iquitos_rl.judging.standings import COLUMNS, Record, as_csv
from iquitos_rl.judging.table import markdown_table, plain_cell, plain_words
from iquitos_rl.judging.timeseries import write_csv
from iquitos_rl.report.metrics import MetricsWriter, plain_name, read_metrics

EXAMPLES = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FORMULAS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
formula = st.builds(
    lambda space, first, rest: space + first + rest,
    st.text(alphabet=" \t\u00a0", max_size=2),
    st.sampled_from(list(FORMULAS)),
    st.sampled_from(["1+1", "cmd|'/c calc'!A0", 'HYPERLINK("x")', "SUM(A1)"]) | st.text(max_size=5),
)
names = formula | st.text(max_size=12) | st.text(alphabet='|`*<>[]()\\"\n,;=', max_size=12)


def runs_nothing(cell: str) -> bool:
    return cell[:1] not in tuple(FORMULAS) and cell.strip()[:1] not in tuple(FORMULAS)


@EXAMPLES
@given(names)
def test_no_cell_is_a_formula_and_plain_names_stay(name):
    cell = plain_cell(name)
    assert runs_nothing(cell)
    assert "\n" not in cell
    if name.isprintable() and name[:1].isalnum():
        assert cell == name
    assert plain_cell(-1.5) == -1.5


@EXAMPLES
@given(st.lists(names, min_size=1, max_size=4), names)
def test_files_for_spreadsheets_hold_no_formula(tmp_path, cells, column):
    write_csv(tmp_path / "file.csv", pd.DataFrame({"socket": cells, f"{column}x": -1.0}))
    texts = [(tmp_path / "file.csv").read_text(encoding="utf-8")]
    figures = dict.fromkeys(COLUMNS, -1.0)
    texts.append(as_csv([Record(name, 1, name, figures) for name in cells]))
    for text in texts:
        for row in csv.reader(io.StringIO(text)):
            for cell in row:
                assert runs_nothing(cell) or float(cell) == -1.0


@EXAMPLES
@given(st.lists(names, min_size=2, max_size=3))
def test_a_markdown_table_has_the_cells_that_it_was_given(row):
    lines = markdown_table([["head"] * len(row), row]).splitlines()
    assert len(lines) == 3
    inner = lines[2].replace("\\\\", "").replace("\\|", "")
    assert inner.count("|") == len(row) + 1


@EXAMPLES
@given(names)
def test_markdown_words_hold_no_tag_and_no_link(name):
    text = plain_words(name)
    bare = text.replace("\\\\", "")
    for at, c in enumerate(bare):
        if c in "`*<>|":
            assert bare[at - 1] == "\\"
    assert "](" not in bare
    assert plain_words("grid_only, 1.5 [1.0, 2.0]") == "grid_only, 1.5 [1.0, 2.0]"


@EXAMPLES
@given(names)
def test_metrics_have_names_that_every_reader_takes(name):
    plain = plain_name(name)
    assert set(plain) <= {*string.ascii_letters, *string.digits, *"_./ %()-"}
    assert plain[0].isalpha() or plain[0] == "_"
    assert plain_name("critic_loss") == "critic_loss"


def test_metrics_go_on_where_tensorboard_cannot_be_written(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file")
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"=loss": 0.5})
    writer.close()
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 1.0, "_loss": 0.5}]
    assert capsys.readouterr().err.count("metrics cannot be written") == 1
