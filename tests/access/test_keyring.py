"""The keeper's keyring: authentication from memory, changes of other processes at once, and a loop that never waits."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from pondkeeper.access.keyring import Keyring
from pondkeeper.access.keys import Key, Keys, NewKey, Role
from pondkeeper.access.store import Store
from pondkeeper.access.tokens import new_token
from pondkeeper.errors import KeeperStopping, KeyNameTaken, Unauthenticated
from tests.access.conftest import OtherProcess

HELD_S = 2.0  # how long another process holds the lock of control.db
CREATE = "store = Store.open(control_db); print(Keys(store).create(sys.argv[2], 'writer', ['sales']).token)"
REVOKE = "store = Store.open(control_db); Keys(store).revoke(sys.argv[2])"
REVOKE_AND_DIE_BEFORE_THE_MARK = """
store = Store.open(control_db)
store.mark.change = lambda: os._exit(0)
Keys(store).revoke(sys.argv[2])
"""
HOLD_THE_LOCK = """
connection = sqlite3.connect(control_db, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


async def refusal(keyring: Keyring, token: str) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await keyring.authenticate(token)
    return caught.value


async def test_a_made_key_gets_in_and_a_revoked_one_does_not(keyring: Keyring) -> None:
    """From `create` on a token opens, from `revoke` on it does not."""
    new = await keyring.create("etl", "writer", ["sales"])
    assert await keyring.authenticate(new.token) == new.key

    await keyring.revoke("etl")

    assert "revoked" in (await refusal(keyring, new.token)).message


async def test_wrong_tokens_are_refused_alike(keyring: Keyring) -> None:
    """Wrong form, unknown id and wrong secret get the same answer, which repeats nothing of the token."""
    new = await keyring.create("etl")
    wrong_secret = new.token[:-1] + ("a" if new.token[-1] != "a" else "b")
    tokens = ["", "pk_", "x" * 5000, new_token()[0], wrong_secret, new.key.id, new.token + "\n"]
    refusals = [await refusal(keyring, token) for token in tokens]

    assert {str(error.to_wire(with_private=True)) for error in refusals} == {str(refusals[0].to_wire())}
    assert await keyring.authenticate(new.token) == new.key


async def test_expiry_holds_without_anybody_doing_anything(keyring: Keyring) -> None:
    """A key ends at its time, from memory."""
    new = await keyring.create("etl", expires_at=time.time() + 1.5)
    assert await keyring.authenticate(new.token) == new.key

    await asyncio.sleep(1.6)

    assert "expired" in (await refusal(keyring, new.token)).message


async def test_a_key_made_by_the_command_line_opens_at_once(keyring: Keyring, other_process: OtherProcess) -> None:
    """What another process made is known at the next request."""
    token = await asyncio.to_thread(other_process.run, CREATE, "etl")

    key = await keyring.authenticate(token)

    assert (key.name, key.role, key.databases) == ("etl", Role.WRITER, ("sales",))


async def test_a_key_revoked_by_the_command_line_is_refused_at_once(
    keyring: Keyring, other_process: OtherProcess
) -> None:
    """The first request after `pondkeeper key revoke` has returned is refused."""
    for round_number in range(3):
        new = await keyring.create(f"etl{round_number}")
        assert await keyring.authenticate(new.token) == new.key
        await asyncio.to_thread(other_process.run, REVOKE, new.key.id)

        await refusal(keyring, new.token)


@pytest.mark.fault
async def test_a_revocation_without_its_mark_holds_soon(keyring: Keyring, other_process: OtherProcess) -> None:
    """A process that dies between commit and mark: the second net catches it."""
    new = await keyring.create("etl")
    await keyring.authenticate(new.token)
    mark = keyring._store.mark.read()
    await asyncio.to_thread(other_process.run, REVOKE_AND_DIE_BEFORE_THE_MARK, "etl")
    assert keyring._store.mark.read() == mark, "positive control: it died before the mark"

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            await keyring.authenticate(new.token)
        except Unauthenticated:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the revoked key still opens")


async def test_the_loop_goes_on_while_another_process_holds_the_lock(
    keyring: Keyring, other_process: OtherProcess
) -> None:
    """A locked control.db delays only who changes keys: authentication, also of changed keys, goes on."""
    new = await keyring.create("etl")
    holder = await asyncio.to_thread(other_process.start, HOLD_THE_LOCK)
    with holder:
        assert (await asyncio.to_thread(holder.stdout.readline)).strip() == "held"  # type: ignore[union-attr]
        creating = asyncio.create_task(keyring.create("late"))
        rounds, longest_s = await authenticate_for(HELD_S, keyring, new)
        was_waiting = not creating.done()
        await asyncio.to_thread(holder.communicate, "\n", 60)

    assert was_waiting, "positive control: the lock was held"
    assert (await creating).key.name == "late"
    assert longest_s < HELD_S / 2  # far above what a turn takes, and far below what the lock was held
    assert rounds > 100


async def authenticate_for(seconds: float, keyring: Keyring, new: NewKey) -> tuple[int, float]:
    """How often it went, and the longest that one turn of the loop with one authentication took."""
    longest_s, rounds, end = 0.0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.monotonic()
        await asyncio.sleep(0)
        assert await keyring.authenticate(new.token) == new.key
        longest_s, rounds = max(longest_s, time.monotonic() - before), rounds + 1
    return rounds, longest_s


async def test_many_processes_and_the_keeper_lose_nothing(
    keyring: Keyring, other_process: OtherProcess, control_db: Path
) -> None:
    """Command lines and the keeper make keys at the same time: every token that was handed out opens, names stay unique."""
    code = """
store = Store.open(control_db)
for number in range(15):
    print(Keys(store).create(f"{sys.argv[2]}-{number}").token, flush=True)
"""
    processes = [asyncio.to_thread(other_process.run, code, f"p{n}") for n in range(3)]
    ours = asyncio.gather(*[keyring.create(f"k-{n}") for n in range(15)])
    outputs = await asyncio.gather(*processes)
    tokens = [new.token for new in await ours] + [line for output in outputs for line in output.splitlines()]

    assert len(tokens) == 60
    assert len({(await keyring.authenticate(token)).id for token in tokens}) == 60
    with pytest.raises(KeyNameTaken):
        await keyring.create("p0-0")


async def test_a_burst_after_a_change_loads_the_keys_once(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that arrive together after a change share one look into control.db."""
    new = await keyring.create("etl")
    loads = 0
    load_as_ever = keyring._load

    def load() -> None:
        nonlocal loads
        loads += 1
        load_as_ever()

    monkeypatch.setattr(keyring, "_load", load)
    keys: list[Key] = await asyncio.gather(*[keyring.authenticate(new.token) for _ in range(50)])

    assert {key.id for key in keys} == {new.key.id}
    assert loads == 1


async def test_last_use_is_noted_lazily_and_at_the_end(control_db: Path) -> None:
    """A request writes nothing; the list and the end of the keeper do."""
    keyring = await Keyring.open(control_db)
    new = await keyring.create("etl")
    await keyring.authenticate(new.token)
    with Store.open(control_db) as store:
        assert Keys(store).all()[0].last_used_at is None
        (listed,) = await keyring.all()
        assert listed.last_used_at == pytest.approx(time.time(), abs=60)
        await keyring.authenticate(new.token)
        await keyring.close()
        assert Keys(store).all()[0].last_used_at > listed.last_used_at  # type: ignore[operator]


async def test_noting_uses_does_not_make_anybody_load_the_keys(keyring: Keyring) -> None:
    """Uses are no change of the keys: the mark stays."""
    new = await keyring.create("etl")
    await keyring.authenticate(new.token)
    mark = keyring._store.mark.read()

    await keyring.all()

    assert keyring._store.mark.read() == mark


async def test_a_closed_keyring_says_that_the_keeper_stops(control_db: Path) -> None:
    """A request that comes too late gets a clear error."""
    keyring = await Keyring.open(control_db)
    new = await keyring.create("etl")
    await keyring.close()
    await keyring.close()

    with pytest.raises(KeeperStopping):
        await keyring.authenticate(new.token)
    with pytest.raises(KeeperStopping):
        await keyring.create("late")


async def test_tokens_appear_in_no_log(
    keyring: Keyring, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever is done with a token, neither log nor output shows it."""
    caplog.set_level(logging.DEBUG)
    new = await keyring.create("etl")
    await keyring.authenticate(new.token)
    await refusal(keyring, new.token[:-1])
    await keyring.revoke(new.token)
    await refusal(keyring, new.token)
    print("positive control")
    output = capfd.readouterr()

    secret = new.token.rpartition("_")[2][:20]
    assert "positive control" in output.out
    assert secret not in output.out + output.err + caplog.text
    assert secret not in repr(keyring.__dict__)


async def test_authentication_is_quick(keyring: Keyring) -> None:
    """Microseconds, so that the gate costs a `select 1` nothing (measured: 1.4 µs; an order of magnitude is left)."""
    new = await keyring.create("etl")
    await keyring.authenticate(new.token)
    began = time.perf_counter()
    for _ in range(5000):
        await keyring.authenticate(new.token)

    assert (time.perf_counter() - began) / 5000 < 100e-6
