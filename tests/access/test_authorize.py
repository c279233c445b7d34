"""The gate: every role against every action, and databases against databases."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest

from pondkeeper.access.authorize import LOCAL_KEY, RULES, Action, Scope, authorize, is_allowed, key_of_peer
from pondkeeper.access.keys import Key, Role
from pondkeeper.errors import Forbidden

READING = {Action.QUERY, Action.DATABASE_STATUS, Action.SNAPSHOT_READ, Action.BACKUP_READ, Action.JOB_SEE}
OWN = {Action.QUERY_SEE_OWN, Action.QUERY_CANCEL_OWN, Action.DATABASES_LIST, Action.EVENTS, Action.JOBS_LIST}
WRITING = {Action.EXECUTE, Action.INGEST, Action.REJECTS_READ, Action.LEASE, Action.TICKETS, Action.SNAPSHOT_TAKE} | {Action.BACKUP_TAKE}
WRITING |= {Action.JOB_LOG, Action.JOB_RUN, Action.JOB_CANCEL}


def key(role: Role, *databases: str) -> Key:
    return Key(id="abcdefghijkl", name="k", role=role, databases=databases, created_at=0.0)


def allowed(key: Key, database: str = "sales") -> set[Action]:
    return {
        action
        for action in Action
        if is_allowed(key, action, database if RULES[action][1] in (Scope.DATABASE, Scope.JOB) else None)
    }


def test_every_action_has_a_rule() -> None:
    """An action without a rule cannot be added by forgetting it."""
    assert set(RULES) == set(Action)


@pytest.mark.parametrize(
    ("role", "actions"),
    [
        (Role.READER, READING | OWN | {Action.METRICS}),
        (Role.WRITER, READING | OWN | WRITING | {Action.METRICS}),
        (Role.ADMIN, set(Action)),
    ],
)
def test_roles_of_every_database(role: Role, actions: set[Action]) -> None:
    """Each role may do exactly this."""
    assert allowed(key(role, "*")) == actions


@pytest.mark.parametrize("role", list(Role))
def test_a_key_of_one_database_reaches_no_other(role: Role) -> None:
    """On another database a key may do nothing, whatever its role, and nothing to the keeper as a whole."""
    assert allowed(key(role, "sales"), "stock") == OWN
    assert allowed(key(role, "sales"), "sales") > READING
    assert not is_allowed(key(role, "sales"), Action.METRICS)


def test_an_admin_of_one_database_makes_no_keys() -> None:
    """Else it would make one for every other database."""
    with pytest.raises(Forbidden):
        authorize(key(Role.ADMIN, "sales"), Action.KEYS)


def test_a_forgotten_database_is_refused() -> None:
    """A door that asks about a database without saying which gets no, for admins too."""
    with pytest.raises(Forbidden):
        authorize(key(Role.ADMIN, "*"), Action.QUERY)


@pytest.mark.parametrize("role", list(Role))
def test_a_job_without_a_database_is_the_whole_keepers(role: Role) -> None:
    """Who may see one database only sees no job that has none; a key for some tables sees no job at all."""
    assert is_allowed(key(role, "*"), Action.JOB_SEE)
    assert not is_allowed(key(role, "sales"), Action.JOB_SEE)
    some_tables = replace(key(Role.READER, "*"), tables=("flights",))
    assert not is_allowed(some_tables, Action.JOB_SEE, "sales")


def test_a_database_named_star_opens_nothing() -> None:
    """`*` is not a name: asking for it does not match a key's list."""
    assert not is_allowed(key(Role.ADMIN, "sales"), Action.QUERY, "*")


def test_refusals_are_alike_for_databases_that_exist_and_do_not() -> None:
    """The gate does not know which exist: its answer differs only in the name that was asked for."""
    with pytest.raises(Forbidden) as caught:
        authorize(key(Role.READER, "sales"), Action.QUERY, "secret")

    assert caught.value.message == "This key is not for the database 'secret'."


def test_our_own_user_is_trusted_on_the_control_socket() -> None:
    """The kernel tells who is at the other end; it is this process."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert key_of_peer(ours) is LOCAL_KEY


def test_another_user_is_not_trusted_on_the_control_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is neither root nor us needs a key."""

    class Connection:
        def getsockopt(self, *_: int) -> bytes:
            return struct.pack("3i", 1, 4_000_000, 4_000_000)

    assert key_of_peer(Connection()) is None  # type: ignore[arg-type]
