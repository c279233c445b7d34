"""Limits at every level: the tightest wins, and a caller is told which it was."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pondkeeper.access import throttle as throttle_module
from pondkeeper.access.authorize import LOCAL_KEY
from pondkeeper.access.grants import grants_of, valid_tables
from pondkeeper.access.keys import Key, Keys, Role
from pondkeeper.access.limit_book import LimitBook
from pondkeeper.access.limits import limits_in, limits_of
from pondkeeper.access.store import Store
from pondkeeper.access.throttle import Throttle
from pondkeeper.errors import InvalidRequest, RateLimited, SettingInvalid, TooManyFailedLogins
from pondkeeper.settings import LimitSettings, Settings


def key(role: Role = Role.READER, **limits: float) -> Key:
    return Key("k1", "one", role, ("*",), 0.0, limits=limits or None)


def book(**settings: Any) -> LimitBook:
    return LimitBook(replace(Settings(), limits=LimitSettings(**settings)))


@pytest.mark.parametrize(
    ("role", "database", "own", "expected"),
    [
        ("timeout_s=5s", "timeout_s=4s", 3.0, (3.0, "key")),
        ("timeout_s=5s", "timeout_s=2s", 3.0, (2.0, "database")),
        ("timeout_s=1s", "timeout_s=2s", 3.0, (1.0, "role")),
        ("timeout_s=100s", "timeout_s=200s", 300.0, (30.0, "server")),
    ],
)
def test_the_tightest_level_wins(role: str, database: str, own: float, expected: tuple[float, str]) -> None:
    effective = book(roles=(f"reader {role}",), databases=(f"sales {database}",)).of(key(timeout_s=own), "sales")
    assert (effective.limits.timeout_s, effective.levels["timeout_s"]) == expected


def test_limits_of_other_roles_and_databases_do_not_hold() -> None:
    limits = book(roles=("writer max_rows=1",), databases=("sales max_bytes=1KB",))
    assert limits.of(key(), "other").limits.max_rows == Settings().readers.max_rows
    assert limits.of(key(), "sales").limits.max_bytes == 1000
    assert limits.of(key(Role.WRITER), "other").limits.max_rows == 1


def test_a_key_that_was_changed_has_its_new_limits() -> None:
    limits = book()
    assert limits.of(key(max_rows=5)).limits.max_rows == 5
    assert limits.of(key(max_rows=6)).limits.max_rows == 6


def test_limits_are_written_with_units() -> None:
    found = limits_in(["timeout_s=250ms", "memory=512MB", "requests_per_s=0.5", "max_rows=10"])
    assert found.to_wire() == {"timeout_s": 0.25, "max_rows": 10, "memory": 512_000_000, "requests_per_s": 0.5}


@pytest.mark.parametrize(
    "written", [{"timeout": 5}, {"timeout_s": 0}, {"timeout_s": -1}, {"max_rows": "many"}, {"max_rows": math.nan},
                {"max_rows": 1e300}, {"threads": True}, {"memory": "5 parsecs"}]
)  # fmt: skip
def test_a_limit_that_is_none_is_refused(written: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        limits_of(written)


@pytest.mark.parametrize("entry", ["reader", "root timeout_s=5", "reader timeout_s", "reader x=1"])
def test_settings_that_are_no_limits_keep_the_keeper_from_starting(entry: str) -> None:
    if entry == "reader":
        book(roles=(entry,))  # a name without limits limits nothing
        return
    with pytest.raises(SettingInvalid):
        book(roles=(entry,))


def test_a_bucket_lets_a_burst_through_and_then_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(throttle_module.time, "monotonic", lambda: now)
    throttle, effective = Throttle(60), book().of(key(requests_per_s=5.0))
    for _ in range(10):
        throttle.request(key(), effective)
    with pytest.raises(RateLimited) as refused:
        throttle.request(key(), effective)
    assert refused.value.details == {"limit": "requests_per_s", "level": "key", "retry_after_s": 0.2}
    now += 0.2
    throttle.request(key(), effective)
    with pytest.raises(RateLimited):
        throttle.request(key(), effective)


def test_queries_at_a_time_are_counted_by_key() -> None:
    throttle, effective = Throttle(60), book().of(key(concurrent=2))
    with throttle.query(key(), effective), throttle.query(key(), effective):
        with pytest.raises(RateLimited), throttle.query(key(), effective):
            pass
        with throttle.query(replace(key(), id="k2"), effective):
            pass
    with throttle.query(key(), effective):
        pass


def test_the_owner_at_the_control_socket_is_never_held_up() -> None:
    throttle, effective = Throttle(60), book(roles=("admin requests_per_s=0.001 concurrent=1",)).of(LOCAL_KEY)
    for _ in range(100):
        throttle.request(LOCAL_KEY, effective)
    with throttle.query(LOCAL_KEY, effective), throttle.query(LOCAL_KEY, effective):
        pass


def test_failed_logins_are_counted_by_network() -> None:
    throttle = Throttle(3)
    for number in range(3):
        throttle.failed_login(f"2001:db8::{number}")
    with pytest.raises(TooManyFailedLogins):
        throttle.failed_login("2001:db8::ffff")
    throttle.failed_login("2001:db9::1")
    throttle.failed_login("10.0.0.1")
    for _ in range(100):
        Throttle(0).failed_login("10.0.0.1")


def test_addresses_without_end_take_memory_with_an_end() -> None:
    throttle = Throttle(3)
    for number in range(throttle_module.MAX_BUCKETS + 50):
        throttle.failed_login(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(throttle._failed) == throttle_module.MAX_BUCKETS


def test_grants_are_read_as_duckdb_compares_names() -> None:
    written = ["Orders", "sales.Orders", "sales.*", '"Odd . ""name"', '"S p".x']
    assert grants_of(written) == (
        ("main", "orders"), ("sales", "orders"), ("sales", None), ("main", 'odd . "name'), ("s p", "x"),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "*", "a.b.c", "a b", "1a", '"', "a.", ".b", "a;b", "*.t", '"a"b', "a\n"])
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        valid_tables([text])


def test_a_key_keeps_its_tables_and_limits(tmp_path: Any) -> None:
    with Store.open(tmp_path / "control.db") as store:
        keys = Keys(store)
        keys.create("plain")
        keys.create("some", tables=["t", "sales.*"], limits={"timeout_s": "5s"})
        plain, some = keys.all()
    assert (plain.tables, plain.grants, plain.limits) == (None, None, None)
    assert some.grants == (("main", "t"), ("sales", None))
    assert some.to_wire()["limits"] == {"timeout_s": 5.0}


@pytest.mark.parametrize("role", ["writer", "admin"])
def test_only_a_reader_is_for_some_tables(tmp_path: Any, role: str) -> None:
    with Store.open(tmp_path / "control.db") as store, pytest.raises(InvalidRequest):
        Keys(store).create("x", role, tables=["t"])
    with Store.open(tmp_path / "control.db") as store, pytest.raises(InvalidRequest):
        Keys(store).create("x", tables=[])
