"""Finding a learning rate from the command line."""

import re

pytest_plugins = ["tests.command_line_fixtures"]


def test_suggests_a_learning_rate(cli, tmp_path, csv_files):
    done = cli("--find_lr", *csv_files[:2], "--backend", "numpy", "--arch", "tiny")
    assert done.returncode == 0, done.stderr
    assert "--augment shift" in done.stdout
    rate = float(re.search("suggestion: --learning_rate (.*)", done.stdout)[1])
    assert 1e-4 < rate < 1
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model-find_lr.png"]
