"""Where settings come from, which source wins, and what an error about them says."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pondkeeper.errors import SettingInvalid
from pondkeeper.settings import Settings, describe, leaves, resolve
from pondkeeper.settings.toml_file import MAX_FILE_BYTES

GIB = 1024**3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pondkeeper.toml"


def refused(file: Path, content: str | bytes) -> SettingInvalid:
    """The error of a settings file with that content."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SettingInvalid) as caught:
        Settings.load(file, environment={})
    assert str(file.parent) not in caught.value.message + caught.value.remedy
    return caught.value


def test_without_any_source_everything_is_default(file: Path) -> None:
    """No file and no variable is a complete, valid configuration."""
    settings = Settings.load(file, environment={})

    assert settings == Settings()
    assert {about.origin for about in describe(settings)} == {"default"}


def test_each_source_wins_over_the_one_before(file: Path) -> None:
    """Defaults < file < environment < flags, and every value says where it is from."""
    file.write_text("# mine\n[readers]\ncount = 1\nmax_waiting = 10\nmax_rows = 100\n")
    environment = {"PONDKEEPER_READERS_COUNT": "2", "PONDKEEPER_READERS_MAX_WAITING": "20"}

    settings = Settings.load(file, environment=environment, flags={"readers.count": 3, "readers.wait_s": None})

    assert (settings.readers.count, settings.readers.max_waiting, settings.readers.max_rows) == (3, 20, 100)
    assert settings.origin("readers.count") == "flag"
    assert settings.origin("readers.max_waiting") == "environment PONDKEEPER_READERS_MAX_WAITING"
    assert settings.origin("readers.max_rows") == "file pondkeeper.toml:5"
    assert settings.origin("readers.wait_s") == "default"


def test_the_process_environment_is_the_default_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an explicit environment, os.environ is read."""
    monkeypatch.setenv("PONDKEEPER_SERVER_PORT", "1234")

    assert Settings.load().server.port == 1234


def test_every_leaf_can_be_set_by_every_source(file: Path) -> None:
    """There is no setting that one of the sources cannot reach."""
    for leaf in leaves().values():
        section, _, key = leaf.name.partition(".")
        text = leaf.choices[0] if leaf.choices else {"text": "x", "list": "a,b"}.get(leaf.kind, "1048576")
        if leaf.maximum is not None and leaf.kind not in ("text", "list"):
            text = str(int(min(1_048_576, leaf.maximum)))
        by_variable = Settings.load(environment={leaf.environment: text}).get(leaf.name)
        by_flag = Settings.load(environment={}, flags={leaf.name: text}).get(leaf.name)
        written = {"text": f'"{text}"', "list": '["a", "b"]'}.get(leaf.kind, text)
        file.write_text(f"[{section}]\n{key} = {written}\n")
        by_file = Settings.load(file, environment={}).get(leaf.name)

        assert by_variable == by_flag == by_file, leaf.name
        assert type(by_file) is type(leaf.default), leaf.name


@pytest.mark.parametrize(
    ("content", "line", "nearest"),
    [
        ("[readers]\n\ncuont = 1\n", 3, "readers.count"),
        ("[reader]\ncount = 1\n", 1, "readers.count"),
        ("count = 1\n", 1, "readers.count"),
        ("# a\nreader.count = 1\n", 2, "readers.count"),
        ("# a\nreaders.cont = 1\n", 2, "readers.count"),
        ("server = { prot = 1 }\n", 1, "server.port"),
        ('[server]\n"hots" = "x"\n', 2, "server.host"),
        ("[writer]\nmemory_limit = '1GB'\n", 2, "writer.memory_limit_bytes"),
    ],
)
def test_unknown_key_names_file_line_and_nearest(file: Path, content: str, line: int, nearest: str) -> None:
    """A typo is an error that says where it is and what was probably meant."""
    error = refused(file, content)

    assert error.details["line"] == line
    assert error.details["nearest"] == nearest
    assert f"pondkeeper.toml, line {line}" in error.message
    assert f"`{nearest}`" in error.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[readers]\ncount = true", "line 2: `readers.count`: True is not a whole number"),
        ("[readers]\ncount = '4'", "is not a whole number"),
        ("[readers]\nmemory_limit_bytes = '1 potato'", "is not a size such as 512MB"),
        ("[readers]\ntimeout_s = 1979-05-27", "is not a duration such as 30s"),
        ("[readers]\ntimeout_s = nan", "is not a duration"),
        ("[server]\nport = 70000", "more than the most, 65,535"),
        ("[server]\nmax_body_bytes = 1", "less than the least, 1 KiB"),
        ("readers = 4", "is a group of settings"),
        ("[readers.count]\nx = 1", "is not a whole number"),
        ("[[readers]]\ncount = 1", "is a group of settings"),
        ("x = ", "not valid TOML"),
        ("[readers]\ncount = 1\ncount = 2", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("a = " + "9" * 5000, "not valid TOML"),
        (b"# \xff", "line 1: not UTF-8"),
        (b"#\n# \xc3", "line 2: not UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), "no settings file"),
    ],
)
def test_bad_files_are_refused_with_what_is_wrong(file: Path, content: str | bytes, says: str) -> None:
    """Whatever is wrong with a settings file, the error says it, and the path stays private."""
    error = refused(file, content)

    assert says in error.message
    assert error.private == str(file)


def test_missing_file_is_refused_only_when_asked_for(file: Path) -> None:
    """`--config` names a file that must be there; the one of the home may be missing."""
    assert Settings.load(file, environment={}) == Settings()

    with pytest.raises(SettingInvalid, match="no such file"):
        Settings.load(file, must_exist=True, environment={})


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    """What cannot be read is an error of ours, not a traceback."""
    with pytest.raises(SettingInvalid, match="cannot be read"):
        Settings.load(tmp_path, environment={})


def test_unknown_variable_names_the_nearest() -> None:
    """A typo in the environment is an error too; variables of others are none of our business."""
    with pytest.raises(SettingInvalid, match="did you mean `PONDKEEPER_READERS_COUNT`"):
        Settings.load(environment={"PONDKEEPER_READER_COUNT": "4", "HOME": "/root"})


def test_unknown_flag_is_refused() -> None:
    """A flag that names no setting is refused like any other typo."""
    with pytest.raises(SettingInvalid, match=r"did you mean `readers\.count`"):
        Settings.load(environment={}, flags={"readers.cout": 1})


def test_variables_of_the_command_line_and_of_kubernetes_are_no_settings() -> None:
    """A pod beside services named pondkeeper and pondkeeper-server starts with its defaults."""
    environment = {
        "PONDKEEPER_HOME": "/x",
        "PONDKEEPER_KEY": "pk_x",
        "PONDKEEPER_URL": "http://x",
        "PONDKEEPER_SERVICE_HOST": "10.0.0.1",
        "PONDKEEPER_SERVICE_PORT_HTTP": "8420",
        "PONDKEEPER_PORT": "tcp://10.0.0.1:8420",
        "PONDKEEPER_PORT_8420_TCP_ADDR": "10.0.0.1",
        "PONDKEEPER_SERVER_PORT": "tcp://10.0.0.1:8420",
        "PONDKEEPER_SERVER_PORT_8420_TCP": "tcp://10.0.0.1:8420",
        "PONDKEEPER_SERVER_SERVICE_PORT": "8420",
    }

    assert Settings.load(environment=environment) == Settings()


def test_a_bad_variable_says_its_name() -> None:
    """The error about a variable names the variable and what was expected."""
    with pytest.raises(SettingInvalid, match="PONDKEEPER_READERS_COUNT: 'many' is not a whole number"):
        Settings.load(environment={"PONDKEEPER_READERS_COUNT": "many"})


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                ["[readers]", "[server]\n", "count", " = ", "1", "true", '"', "'", "\n", "[", "]", "{", "}", ".", ",", "\x00",
                 "port", "1e999", "0x", "'512MB'", "#", "\\", "nan", "1979-05-27", "=", '"""', "é", "log.level='info'\n"]
            ),
            max_size=25,
        ).map(lambda parts: "".join(parts).encode()),
    )
)  # fmt: skip
@example(b"readers.count.x = 1")
@example(b'"" = 1')
@example(b'"\\u0000" = {"a" = 1}')
def test_no_file_breaks_the_loader(file: Path, content: bytes) -> None:
    """Any bytes are settings or SettingInvalid, and the message is one printable line."""
    file.write_bytes(content)
    settings, message = load(file, {})

    assert str(file) not in message
    assert len(message) < 500
    assert 0 <= settings.server.port <= 65_535


def load(file: Path | None, environment: dict[str, str]) -> tuple[Settings, str]:
    """The settings, or the defaults and the message that refused them."""
    try:
        return Settings.load(file, environment=environment), ""
    except SettingInvalid as error:
        return Settings(), error.message


@given(st.dictionaries(st.text(max_size=30).map(lambda name: "PONDKEEPER_" + name), st.text(max_size=30), max_size=3))
def test_no_environment_breaks_the_loader(environment: dict[str, str]) -> None:
    """Any variables are settings or SettingInvalid."""
    _, message = load(None, environment)

    assert len(message) < 500


def test_settings_are_frozen() -> None:
    """Nobody changes a setting behind another's back."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().readers.count = 3  # type: ignore[misc]


def test_importing_settings_loads_no_library() -> None:
    """Every process may import the settings: they cost nothing but the standard library."""
    code = "import sys; before = set(sys.modules); import pondkeeper.settings; print(*(set(sys.modules) - before))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)

    third_party = {"duckdb", "pyarrow", "msgspec", "fastapi", "click", "rich", "structlog", "httpx"}
    assert "pondkeeper.settings.tree" in loaded.stdout.split()
    assert third_party.isdisjoint(name.split(".")[0] for name in loaded.stdout.split())


@pytest.mark.parametrize(
    ("cpus", "ram_gib", "count", "reader_gib", "writer_gib"),
    [(2, 8, 4, 1, 2), (16, 256, 16, 4, 64), (1, 1, 4, 0.25, 0.25)],
)
def test_resolve_fits_the_machine(cpus: int, ram_gib: int, count: int, reader_gib: float, writer_gib: float) -> None:
    """The automatic values follow CPUs and memory within their bounds."""
    resolved = resolve(Settings(), cpus, ram_gib * GIB)

    assert resolved.readers.count == count
    assert resolved.readers.threads == resolved.writer.threads == cpus
    assert resolved.readers.memory_limit_bytes == reader_gib * GIB
    assert resolved.writer.memory_limit_bytes == writer_gib * GIB


def test_resolve_leaves_alone_what_was_chosen() -> None:
    """A value that somebody set is not changed, and keeps its origin."""
    chosen = Settings.load(environment={}, flags={"readers.count": 2, "readers.memory_limit_bytes": "1GiB"})
    resolved = resolve(chosen, cpus=8, ram_bytes=64 * GIB)

    assert (resolved.readers.count, resolved.readers.memory_limit_bytes) == (2, GIB)
    assert resolved.origin("readers.count") == "flag"


def test_describe_tells_everything_about_each_setting() -> None:
    """`pondkeeper settings` has value, effective value, default, unit, origin, help and variable of every leaf."""
    settings = Settings.load(environment={"PONDKEEPER_READERS_COUNT": "0"})
    rows = {about.name: about for about in describe(settings, resolve(settings, 2, 8 * GIB))}

    assert list(rows) == list(leaves())
    assert all(about.help.endswith(".") and about.environment.startswith("PONDKEEPER_") for about in rows.values())
    assert (rows["readers.count"].value, rows["readers.count"].effective) == (0, 4)
    assert rows["readers.count"].automatic
    assert rows["readers.timeout_s"].unit == "s"


def test_names_carry_their_unit() -> None:
    """A number in seconds ends in _s, a rate in _per_s, one in bytes in _bytes: nobody has to guess."""
    for leaf in leaves().values():
        assert leaf.name.endswith("_per_s") == (leaf.unit == "per second"), leaf.name
        assert (leaf.name.endswith("_s") and leaf.unit != "per second") == (leaf.unit == "s"), leaf.name
        assert leaf.name.endswith("_bytes") == (leaf.unit == "bytes"), leaf.name
