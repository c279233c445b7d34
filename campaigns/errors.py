"""EIO and ENOSPC on the Nth write or fsync of the writer: every outcome is true, reads go on, recovery needs no hands."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from campaigns.injecting import SYNCS, WRITES, Fault, Injector, failed_call, judge, why_no_tracer
from campaigns.ledger import LOOK, Book, Found
from campaigns.running import Stage, percentile
from campaigns.scene import Scene
from campaigns.striker import writer_of
from pondkeeper.client import Client
from pondkeeper.errors import PondkeeperError
from tests.support.keeper import wait_until

LONG_ROUNDS, SHORT_ROUNDS = 200, 10
INJECTED_WITHIN_S = 5.0
RESUMES_S = 90.0
THERE_WITHIN_S = 60.0
MOST_NTH = {SYNCS: 6, WRITES: 10, ("ftruncate",): 2}
FORGED_LOG = """
71 fdatasync(9</pond.duckdb.wal>) = -1 EIO (Input/output error) (INJECTED)
71 fdatasync(9</pond.duckdb.wal>) = 0
"""


def draw(chance: random.Random) -> Fault:
    """A call, an error and a number."""
    calls = chance.choices([SYNCS, WRITES, ("ftruncate",)], [5, 5, 1])[0]
    error = "EIO" if calls == SYNCS else chance.choice(["EIO", "ENOSPC"])
    return Fault(calls, error, chance.randint(1, MOST_NTH[calls]))


def play(stage: Stage) -> None:
    """Clients that give up at the first error, so that what they are told is what the keeper said first."""
    if (reason := why_no_tracer()) is not None:
        stage.line(skipped=f"no tracer: {reason}")
        return
    stage.control("a log in which a failed fsync is retried", judge(FORGED_LOG))
    with Scene(stage.room("errors"), retry_for_s=0.0) as scene:
        _Errors(stage, scene).play(stage.options.of(LONG_ROUNDS, SHORT_ROUNDS))


class _Errors:
    """The rounds on one scene."""

    def __init__(self, stage: Stage, scene: Scene) -> None:
        self._stage = stage
        self._scene = scene
        self._chance = stage.chance
        self._failed: Counter[str] = Counter()
        self._resumed_s: list[float] = []

    def play(self, rounds: int) -> None:
        violations: list[str] = []
        made = 0
        with self._scene.connect(0.0) as client:
            for number in range(1, rounds + 1):
                if violations or not self._stage.has_time:
                    break
                violations, made = self._one(number, client), number
            self._control(client)
        violations += self._scene.look_at_the_end()
        self._stage.violated(violations)
        if violations:
            self._scene.keep(violations, {"seed": self._stage.options.seed})
        self._sum_up(made)

    def _one(self, number: int, client: Client) -> list[str]:
        fault, log = draw(self._chance), self._scene.folder / f"calls-{number}.log"
        before = self._errors()
        self._scene.crowd.wait_commits(3)
        pid = wait_until(lambda: writer_of(self._scene.keeper.pid), timeout_s=THERE_WITHIN_S, what="a writer")
        injected, wrong = self._inject(pid, fault, log, client)
        wrong += self._recover(client)
        text = log.read_text(errors="replace") if log.exists() else ""
        wrong += judge(text)
        call = failed_call(text)
        if injected and call:
            self._failed[f"{fault.error} {call}"] += 1
        self._stage.line(
            round=number, calls=fault.calls, error=fault.error, nth=fault.nth, failed=call,
            told=dict(self._errors() - before), resumed_s=round(self._resumed_s[-1], 3), violations=wrong,
        )  # fmt: skip
        if not wrong:
            log.unlink(missing_ok=True)
        return wrong

    def _errors(self) -> Counter[str]:
        return sum((told.errors for told in self._scene.told.values()), Counter())

    def _inject(self, pid: int, fault: Fault, log: Path, client: Client) -> tuple[bool, list[str]]:
        injector = Injector(pid, fault, self._scene.keeper.target, log)
        try:
            if not injector.wait_attached():
                return False, []  # Why no violation: a writer may have ended in that moment; the summary counts.
            injected = injector.wait_injected(INJECTED_WITHIN_S)
            return injected, self._read(client)
        finally:
            injector.close()

    def _read(self, client: Client) -> list[str]:
        try:
            client.query("SELECT count(*) FROM entries")
        except PondkeeperError as error:
            return [f"a read failed: {error.code}: {error.message}"]
        return []

    def _recover(self, client: Client) -> list[str]:
        began = time.monotonic()
        while (problem := self._refusal(client)) and time.monotonic() < began + RESUMES_S:
            time.sleep(0.02)
        self._resumed_s.append(time.monotonic() - began)
        return [f"writes did not resume by themselves: {problem}"] if problem else self._scene.look_patiently()

    def _refusal(self, client: Client) -> str | None:
        try:
            self._scene.probe(client)
        except PondkeeperError as error:
            return error.code
        return None

    def _control(self, client: Client) -> None:
        """Were a committed write told to be refused, the look would say so."""
        told = {number: replace(each, refused=set(each.committed[:1])) for number, each in self._scene.told.items()}
        found = Book().judge(Found.of_row(client.query(LOOK, [0]).rows[0]), {}, told)
        self._stage.control("a lie about a refused write", [text for text in found if text.startswith("refused and there")])

    def _sum_up(self, rounds: int) -> None:
        told: list[Any] = list(self._scene.told.values())
        failed = sum(self._failed.values())
        self._stage.line(
            summary=True, rounds=rounds, calls_failed=failed, by_call=dict(self._failed), commits=self._scene.crowd.commits,
            refused=sum(len(each.refused) for each in told), unknown=sum(len(each.unknown) for each in told),
            errors=dict(self._errors()), resumed_p99_s=percentile(self._resumed_s, 0.99),
            resumed_max_s=percentile(self._resumed_s, 1.0),
        )  # fmt: skip
        if failed < rounds * 0.4:
            self._stage.violated([f"only {failed} of {rounds} rounds made a call fail"])
