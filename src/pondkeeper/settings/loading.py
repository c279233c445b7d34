"""The sources of settings and their order: defaults < TOML file < environment < flags. Every value keeps its origin."""

from __future__ import annotations

import os
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pondkeeper.errors import SettingInvalid
from pondkeeper.settings.leaves import ENVIRONMENT_PREFIX, leaves, nearest, section_classes
from pondkeeper.settings.toml_file import SettingsFile, read_settings_file
from pondkeeper.settings.tree import Settings
from pondkeeper.settings.values import ValueUnusable, from_text, from_value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Variables of the command line itself, which are no settings.
OTHER_VARIABLES = frozenset(
    {"PONDKEEPER_HOME", "PONDKEEPER_URL", "PONDKEEPER_KEY", "PONDKEEPER_CONFIG", "PONDKEEPER_DATABASE", "PONDKEEPER_RUN"}
)

# A section of the same file that is no setting: the jobs are read by `pondkeeper.jobs.definition`.
JOBS = "jobs"

# Trap: Kubernetes sets such variables in every pod for a service whose name begins with "pondkeeper", among them
# PONDKEEPER_SERVER_PORT=tcp://10.0.0.1:8420 for one named "pondkeeper-server".
_KUBERNETES_NAME = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)\Z")
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://")


def load(
    file: Path | None, *, must_exist: bool, environment: Mapping[str, str] | None, flags: Mapping[str, Any]
) -> Settings:
    """What `Settings.load` promises."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    written = read_settings_file(file, must_exist=must_exist) if file is not None else None
    if written is not None:
        _take_file(written, values, origins)
    _take_environment(os.environ if environment is None else environment, values, origins)
    _take_flags(flags, values, origins)
    return _build(values, origins, file)


def _build(values: Mapping[str, Any], origins: dict[str, str], file: Path | None) -> Settings:
    sections: dict[str, dict[str, Any]] = {section: {} for section in section_classes()}
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections[section][key] = value
    made = {section: kind(**sections[section]) for section, kind in section_classes().items()}
    return Settings(**made, origins=MappingProxyType(origins), file=file)


def _take_file(written: SettingsFile, values: dict[str, Any], origins: dict[str, str]) -> None:
    for section, content in written.table.items():
        if section == JOBS:
            continue
        if section not in section_classes():
            raise _unknown_in_file(written, section, content)
        if not isinstance(content, dict):
            raise written.invalid(
                section, f"`{section}` is a group of settings, not one: write [{section}] and its keys"
            )
        for key, value in content.items():
            name = f"{section}.{key}"
            if name not in leaves():
                raise _unknown_in_file(written, name, value)
            try:
                values[name] = from_value(leaves()[name], value)
            except ValueUnusable as error:
                raise written.invalid(name, f"`{name}`: {error}") from error
            origins[name] = f"file {written.place(name)}"


def _unknown_in_file(written: SettingsFile, name: str, content: Any) -> SettingInvalid:
    """The error for a key that is no setting; of an unknown group, for its first key."""
    first = f"{name}.{next(iter(content))}" if isinstance(content, dict) and content and "." not in name else name
    message, near = _unknown(first, list(leaves()))
    return written.invalid(name if written.line(name) else first, message, nearest=near)


def _unknown(name: str, known: list[str]) -> tuple[str, str | None]:
    shown = name[:80] if name[:80].isprintable() else ascii(name[:80])
    near = nearest(name, known)
    return f"there is no setting `{shown}`" + (f"; did you mean `{near}`?" if near else ""), near


def _take_environment(environment: Mapping[str, str], values: dict[str, Any], origins: dict[str, str]) -> None:
    by_variable = {leaf.environment: leaf for leaf in leaves().values()}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        leaf = by_variable.get(variable)
        if _is_of_kubernetes(variable, text, known=leaf is not None):
            continue
        if leaf is None:
            message, near = _unknown(variable, list(by_variable))
            raise SettingInvalid(f"Environment: {message}", nearest=near)
        try:
            values[leaf.name] = from_text(leaf, text)
        except ValueUnusable as error:
            raise SettingInvalid(f"Environment variable {variable}: {error}", setting=leaf.name) from error
        origins[leaf.name] = f"environment {variable}"


def _is_of_kubernetes(variable: str, text: str, *, known: bool) -> bool:
    if _KUBERNETES_VALUE.match(text):
        return variable.endswith("_PORT") or not known
    return not known and bool(_KUBERNETES_NAME.match(variable))


def _take_flags(flags: Mapping[str, Any], values: dict[str, Any], origins: dict[str, str]) -> None:
    for name, value in flags.items():
        if value is None:
            continue
        leaf = leaves().get(name)
        if leaf is None:
            message, near = _unknown(name, list(leaves()))
            raise SettingInvalid(f"Flag: {message}", nearest=near)
        try:
            values[name] = from_text(leaf, value) if isinstance(value, str) else from_value(leaf, value)
        except ValueUnusable as error:
            raise SettingInvalid(f"Flag for `{name}`: {error}", setting=name) from error
        origins[name] = "flag"
