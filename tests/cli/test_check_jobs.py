"""`pondkeeper check` reads the jobs as a keeper would, and names every mistake."""

from __future__ import annotations

from pathlib import Path

from pondkeeper.cli.doctor.jobs import examine
from pondkeeper.files.paths import Home

GOOD = '[jobs.a]\nkind = "command"\ncommand = ["x"]\n'


def found(home: Home, text: str) -> list[tuple[str, str]]:
    home.root.mkdir(exist_ok=True)
    home.settings_file.write_text(text)
    return [(finding.level, finding.what) for finding in examine(home)]


def test_every_mistake_is_a_finding(tmp_path: Path) -> None:
    """With its line; a good file is said to be one; without jobs, and with broken settings, nothing is said."""
    home = Home(tmp_path / ".pondkeeper")

    assert found(home, GOOD) == [("ok", "1 in pondkeeper.toml: a")]
    mistakes = found(home, GOOD + 'retries = "x"\nfoo = 1\n')
    assert [level for level, _ in mistakes] == ["problem", "problem"]
    assert [what.partition(":")[0] for _, what in mistakes] == ["pondkeeper.toml, line 4", "pondkeeper.toml, line 5"]
    assert found(home, "[readers]\ncount = 1\n") == []
    assert found(home, "[jobs\n") == []


def test_files_of_secrets_are_looked_at(tmp_path: Path) -> None:
    """One that is not there is a problem, one that others can read a warning."""
    home, key = Home(tmp_path / ".pondkeeper"), tmp_path / "hook"
    text = GOOD + f'notify = {{ url = "file:{key}", secret = "env:KEY" }}\n'

    assert [level for level, _ in found(home, text)] == ["ok", "problem"]
    key.write_text("https://x.example")
    key.chmod(0o644)
    assert [level for level, _ in found(home, text)] == ["ok", "warning"]
    key.chmod(0o600)
    assert [level for level, _ in found(home, text)] == ["ok"]
