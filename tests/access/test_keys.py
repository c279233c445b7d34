"""Keys: made, listed, revoked; what they may be called; what is left of their secrets."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pondkeeper.access.keys import Keys, Role
from pondkeeper.access.tokens import parse_token
from pondkeeper.errors import InvalidRequest, KeyNameTaken, KeyNotFound


def test_a_key_comes_back_as_it_was_made(keys: Keys) -> None:
    """Name, role, databases and expiry are kept."""
    expires_at = time.time() + 3600
    made = keys.create("dashboard", "writer", ["sales", "stock", "sales"], expires_at).key

    assert keys.all() == [made]
    assert (made.name, made.role, made.databases) == ("dashboard", Role.WRITER, ("sales", "stock"))
    assert made.expires_at == expires_at
    assert made.to_wire()["state"] == "live"


def test_first_start_makes_one_admin_key(keys: Keys) -> None:
    """The first call answers a token of an admin of everything, every later one nothing."""
    token = keys.ensure_admin_key()

    assert token is not None
    assert keys.ensure_admin_key() is None
    (key,) = keys.all()
    assert (key.role, key.databases) == (Role.ADMIN, ("*",))
    assert parse_token(token).key_id == key.id  # type: ignore[union-attr]


def test_no_admin_key_appears_after_all_were_revoked(keys: Keys) -> None:
    """Who revokes every key means it."""
    keys.ensure_admin_key()
    keys.revoke("admin")

    assert keys.ensure_admin_key() is None


def test_names_are_unique_among_live_keys(keys: Keys) -> None:
    """A live name is taken; a revoked key gives its name back."""
    first = keys.create("etl")
    with pytest.raises(KeyNameTaken):
        keys.create("etl")
    keys.revoke("etl")

    second = keys.create("etl")

    assert [key.id for key in keys.all()] == [first.key.id, second.key.id]


def test_an_expired_key_gives_its_name_back(keys: Keys) -> None:
    """Expiry ends a key like a revocation does; revoking by name then means the live one."""
    keys.create("etl", expires_at=time.time() + 0.05)
    time.sleep(0.1)
    second = keys.create("etl")

    assert keys.revoke("etl").id == second.key.id


@pytest.mark.parametrize("by", ["id", "name", "token"])
def test_a_key_is_revoked_by_id_name_or_token(keys: Keys, by: str) -> None:
    """A leaked token is enough to end its key."""
    new = keys.create("etl")
    reference = {"id": new.key.id, "name": "etl", "token": new.token}[by]

    revoked = keys.revoke(reference)

    assert revoked.revoked_at is not None
    assert keys.revoke(new.key.id) == revoked, "revoking again changes nothing"


def test_revoking_an_unknown_key_does_not_repeat_it(keys: Keys) -> None:
    """What was given may be a secret with a typo in it, or no text at all."""
    for reference in ("pk_abcdefghijkl_mistyped", "", "mistyped\udcff", "mistyped\x00"):
        with pytest.raises(KeyNotFound) as caught:
            keys.revoke(reference)

        assert "mistyped" not in str(caught.value.to_wire(with_private=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": " etl"},
        {"name": "a\nb"},
        {"name": "x" * 101},
        {"name": "pk_abcdefghijkl_secret"},
        {"role": "root"},
        {"role": "ADMIN"},
        {"databases": []},
        {"databases": ["a,b"]},
        {"databases": ["../etc"]},
        {"databases": [""]},
        {"databases": ["a"] + [f"d{n}" for n in range(1000)]},
        {"expires_at": 1.0},
        {"expires_at": math.nan},
        {"expires_at": math.inf},
        {"expires_at": 1e300},
    ],
)
def test_wrong_keys_are_refused(keys: Keys, wrong: dict[str, object]) -> None:
    """A key that could not be meant is not made, and the error does not repeat what was given."""
    with pytest.raises(InvalidRequest) as caught:
        keys.create(**({"name": "etl"} | wrong))  # type: ignore[arg-type]

    assert "secret" not in caught.value.message
    assert keys.all() == []


def test_star_means_every_database(keys: Keys) -> None:
    """`*` beside names is `*`; a single text is one name."""
    assert keys.create("a", databases=["sales", "*"]).key.databases == ("*",)
    assert keys.create("b", databases="sales").key.databases == ("sales",)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.text(max_size=120), st.sampled_from(list(Role)), st.lists(st.text(max_size=8), max_size=3))
def test_any_key_is_made_whole_or_refused(keys: Keys, name: str, role: Role, databases: list[str]) -> None:
    """Whatever is asked for: a key that reads back the same and can be revoked by its name, or an error of ours."""
    try:
        made = keys.create(name, role, databases).key
    except (InvalidRequest, KeyNameTaken):
        return
    assert made in keys.all()
    assert keys.revoke(name).id == made.id


def test_uses_only_move_forward(keys: Keys) -> None:
    """A late note of an early use does not turn the clock back."""
    key = keys.create("etl").key
    keys.note_uses({key.id: 200.0, "nobody": 1.0})
    keys.note_uses({key.id: 100.0})

    assert keys.all()[0].last_used_at == 200.0


def test_secrets_are_nowhere(keys: Keys, control_db: Path) -> None:
    """Neither the files nor a repr hold the secret of a token; the id, as a positive control, is there."""
    new = keys.create("etl")
    secret = new.token.rpartition("_")[2]
    on_disk = b"".join(file.read_bytes() for file in control_db.parent.iterdir())

    assert new.key.id.encode() in on_disk
    assert secret.encode() not in on_disk
    for shown in (repr(new), repr(new.key), str(new.key.to_wire()), repr(keys.locks())):
        assert new.key.id in shown
        assert secret not in shown
        assert repr(parse_token(new.token).digest) not in shown  # type: ignore[union-attr]
