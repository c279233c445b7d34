"""Jobs from the settings file: what is taken, and how each mistake is told with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pondkeeper.errors import JobInvalid, JobNotFound, PondkeeperError, SettingInvalid
from pondkeeper.jobs.definition import Job, Notify, Schedule
from pondkeeper.jobs.job_keys import JobKeys
from pondkeeper.jobs.kinds_settings import KINDS
from pondkeeper.jobs.kinds_settings.leaves import places
from pondkeeper.jobs.loading import job_named, load_jobs
from pondkeeper.jobs.secrets import reveal
from pondkeeper.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pondkeeper.toml"


def loaded(file: Path, text: str) -> tuple[Job, ...]:
    file.write_text(text)
    return load_jobs(file)


def refused(file: Path, text: str) -> JobInvalid:
    """The error of a file; it names the file, and never its folder."""
    with pytest.raises(JobInvalid) as caught:
        loaded(file, text)
    assert str(file.parent) not in caught.value.message + caught.value.remedy
    return caught.value


def test_a_job_as_it_can_be_written(file: Path) -> None:
    """All common keys, the kind's own beside them, durations with and without a unit in the name."""
    (first, second) = loaded(
        file,
        """
[readers]
count = 2

[jobs.build]
kind = "command"
command = ["make", "all"]
lease = "whole"
environment = { STAGE = "prod" }
database = "sales"
schedule = "30  5 * * 1-5"
timezone = "Europe/Berlin"
missed = "skip"
timeout = "30m"
retries = 3
retry_wait_s = 5
priority = "normal"
enabled = false
notify = "https://hooks.example.com/x"

[jobs.report]
kind = "command"
command = ["report"]
after = ["build"]
[jobs.report.notify]
url = "env:HOOK"
on = ["stale"]
stale_after = "26h"
""",
    )

    assert (first.name, first.kind, first.database, first.line) == ("build", "command", "sales", 5)
    assert first.schedule == Schedule("30 5 * * 1-5", "Europe/Berlin")
    assert (first.timeout_s, first.retries, first.retry_wait_s, first.priority) == (1800.0, 3, 5.0, "normal")
    assert (first.missed, first.enabled, first.after) == ("skip", False, ())
    assert first.notify == Notify("https://hooks.example.com/x", remind_s=86_400.0)
    assert (first.settings.command, first.settings.lease) == (("make", "all"), "whole")
    assert first.settings.environment == {"STAGE": "prod"}
    assert (second.after, second.schedule, second.database, second.enabled) == (("build",), None, None, True)
    assert second.notify == Notify("env:HOOK", ("stale",), 93_600.0, 86_400.0)
    assert Settings.load(file, environment={}).readers.count == 2
    assert Settings.load(file, environment={}).file == file


def test_arguments_may_span_lines(file: Path) -> None:
    """A small script as an argument, and an empty one; what no program could be given is refused."""
    (job,) = loaded(file, '[jobs.a]\nkind = "command"\ncommand = ["sh", "-c", """\nset -e\n\techo $1\n""", ""]\n')

    assert job.settings.command == ("sh", "-c", "set -e\n\techo $1\n", "")
    assert "printable" in refused(file, '[jobs.a]\nkind = "command"\ncommand = ["a\\u0000b"]').message


@pytest.mark.parametrize("text", ["", "[readers]\ncount = 1\n", "[jobs]\n"])
def test_no_jobs_are_no_jobs(file: Path, text: str) -> None:
    """A file without jobs, an empty one and none at all have none."""
    assert loaded(file, text) == ()
    assert load_jobs(None) == load_jobs(file.with_name("none.toml")) == ()


COMMAND = '[jobs.a]\nkind = "command"\ncommand = ["x"]\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (COMMAND + 'shedule = "@daily"', 4, ["`shedule`", "did you mean `schedule`"]),
        (COMMAND + 'enviroment = { A = "b" }', 4, ["did you mean `environment`"]),
        (COMMAND + "timeout = 30", 4, ["needs a unit", "`timeout_s`"]),
        (COMMAND + 'timeout = "30m"\ntimeout_s = 3', 5, ["given twice"]),
        (COMMAND + "timeout_s = true", 4, ["True is not a duration"]),
        (COMMAND + "retries = -1", 4, ["less than the least"]),
        (COMMAND + 'priority = "high"', 4, ["interactive, normal, background"]),
        (COMMAND + "enabled = 1", 4, ["neither true nor false"]),
        (COMMAND + 'schedule = "* * * *"', 4, ["five fields"]),
        (COMMAND + 'schedule = "61 * * * *"', 4, ["bad minute"]),
        (COMMAND + 'schedule = "0 0 30 2 *"', 4, ["`schedule`"]),
        (COMMAND + 'schedule = "every now and then"', 4, ["every 30s"]),
        (COMMAND + 'schedule = "every 10ms"', 4, ["one second"]),
        (COMMAND + 'timezone = "Europe/Berln"', 4, ["did you mean 'Europe/Berlin'"]),
        (COMMAND + 'timezone = "Europe"', 4, ["no time zone"]),
        (COMMAND + 'timezone = "/etc/passwd"', 4, ["no time zone"]),
        (COMMAND + 'after = ["a"]', 4, ["a after a"]),
        (COMMAND + 'after = ["b"]', 4, ["no such job"]),
        (COMMAND + 'database = "../x"', 4, ["cannot be the name"]),
        (COMMAND + 'notify = "hooks.example.com"', 4, ["an address such as"]),
        (COMMAND + 'notify = "https://[x"', 4, ["an address such as"]),
        (COMMAND + 'notify = { url = "env:X", on = ["failures"] }', 4, ["did you mean 'failure'"]),
        (COMMAND + 'notify = { url = "env:X", secret = "hunter2" }', 4, ["env:NAME"]),
        (COMMAND + "notify = {}", 4, ["needs `url`"]),
        (COMMAND + "notify = 7", 4, ["is a table"]),
        ('[jobs.a]\nkind = "comand"', 2, ["did you mean 'command'"]),
        ('[jobs.a]\nkind = "dtb"', 2, ["did you mean 'dbt'"]),
        ('[jobs.a]\nkind = "command"\ncomand = ["x"]', 3, ["did you mean `command`"]),
        ('[jobs.a]\nkind = "qqqqqqq"', 2, ["command, dbt, dlt"]),
        ('[jobs.a]\nschedule = "@daily"', 1, ["needs `kind`"]),
        ('[jobs.a]\nkind = "command"', 1, ["needs `command`"]),
        ("[jobs.a]\nkind = 3", 2, ["is not a text"]),
        ('[jobs.a]\nkind = "command"\ncommand = "x"', 3, ["is not a list of texts"]),
        ('[jobs."a b"]\nkind = "command"\ncommand = ["x"]', 1, ["cannot be the name of a job"]),
        ('[jobs]\na = "command"', 2, ["[jobs.NAME]"]),
        ("jobs = 3", 1, ["[jobs.NAME]"]),
        ("[[jobs]]\nkind = 3", 1, ["[jobs.NAME]"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(file: Path, text: str, line: int, words: list[str]) -> None:
    """The message has the file's name, the line and what was probably meant."""
    error = refused(file, "\n" + text)

    assert error.details["line"] == line + 1, error.message
    assert error.message.startswith(f"pondkeeper.toml, line {line + 1}: ")
    assert all(word in error.message for word in words), error.message
    assert "hunter2" not in str(error.to_wire(with_private=True))


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    """Who mends a file wants all of them, in the order of the lines."""
    error = refused(file, COMMAND + 'retries = "x"\n[jobs.b]\nkind = "command"\nfoo = 1\n[jobs.c]\nkind = "nope"\n')

    assert [problem["line"] for problem in error.details["problems"]] == [4, 5, 7, 9]
    assert error.message.endswith("(3 more)")


def test_a_circle_is_told_once_with_its_way(file: Path) -> None:
    """Each job of it, in the order in which they wait; jobs that only wait for it are not accused."""
    jobs = {"a": ["c"], "b": ["a"], "c": ["b"], "d": ["a"]}
    error = refused(file, "\n".join(f'[jobs.{name}]\nkind = "command"\ncommand = ["x"]\nafter = {after}' for name, after in jobs.items()))

    assert "a after c after b after a" in error.message
    assert len(error.details["problems"]) == 1
    assert error.details["line"] == 4


def test_diamonds_are_no_circle(file: Path) -> None:
    """Two ways to the same job are fine."""
    jobs: dict[str, list[str]] = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "a"]}
    text = "\n".join(f'[jobs.{name}]\nkind = "command"\ncommand = ["x"]\nafter = {after}' for name, after in jobs.items())

    assert [job.name for job in loaded(file, text)] == list("abcd")


def test_broken_toml_is_a_setting_error_with_its_line(file: Path) -> None:
    """What is no TOML is nobody's job."""
    file.write_text("[jobs.a]\nkind = \n")
    with pytest.raises(SettingInvalid) as caught:
        load_jobs(file)
    assert caught.value.details["line"] == 2


def test_a_job_that_is_not_there_names_the_nearest(file: Path) -> None:
    """`pondkeeper job run naem`."""
    jobs = loaded(file, COMMAND.replace("jobs.a", "jobs.nightly"))

    assert job_named(jobs, "nightly").name == "nightly"
    with pytest.raises(JobNotFound, match="did you mean 'nightly'"):
        job_named(jobs, "nigthly")


@pytest.mark.parametrize("kind", KINDS.values())
def test_no_kind_takes_a_common_key(kind: type[Any]) -> None:
    """The keys of a job are flat: one of a kind that has the name of a common one could not be reached."""
    common = {name for place in places(JobKeys).values() for name in (place.name, place.short)}
    own = {name for place in places(kind).values() for name in (place.name, place.short)}

    assert own & common <= {None}
    assert set(getattr(kind, "required", ())) <= own


@pytest.mark.parametrize("kind", [JobKeys, *KINDS.values()])
def test_every_leaf_says_what_it_is(kind: type[Any]) -> None:
    """The reference is made of it."""
    for place in places(kind).values():
        assert len(place.leaf.help) > 10
        assert place.leaf.help.endswith((".", ".)", "…")), place


def test_a_secret_is_revealed_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment or a file; what is missing is an error that names the name, and no path."""
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("A_KEY", "other")

    assert reveal(f"file:{tmp_path}/key") == "s3cret"
    assert reveal("env:A_KEY") == "other"
    for reference in ("env:NOT_THERE", f"file:{tmp_path}/none", f"file:{tmp_path}", "s3cret"):
        with pytest.raises(PondkeeperError) as caught:
            reveal(reference)
        assert str(tmp_path) not in caught.value.message + caught.value.remedy
        assert "s3cret" not in caught.value.message
