from iquitos_rl import plan


def test_the_command_prints_the_table(week_38, capsys):
    arguments = ["sac", "--case", str(week_38), "--device", "cpu", "--num-envs", "2"]
    assert plan.main([*arguments, "--device-memory", "8GiB", "--ram", "16GiB"]) == 0
    text = capsys.readouterr().out
    assert "placement cuda" in text
    assert "8,192.0 MiB" in text
    assert "16.00 GiB" in text
    assert plan.main(arguments) == 0
    assert "placement ram" in capsys.readouterr().out


def test_what_does_not_fit_is_exit_status_2(week_38, capsys):
    arguments = ["sac", "--case", str(week_38), "--device", "cpu", "--ram", "64MiB"]
    assert plan.main(arguments) == 2
    *table, sentence = capsys.readouterr().err.splitlines()
    assert table[-1].startswith("chosen: ")
    assert sentence.startswith("error: training does not fit: ")
    assert plan.main([*arguments, "--ram", "lots"]) == 2
    assert "is not a size" in capsys.readouterr().err
