"""What a primary hands out of its snapshots: the same whether it was told what has changed or looked at everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pondkeeper.archive.replica.feeder import Feeder, Look
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.tree import Tree, block_span
from pondkeeper.errors import DatabaseUnreadable, SnapshotNotFound
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.copier import Copier

STEPS = (
    "INSERT INTO t SELECT range, random(), repeat('x', 50) FROM range(60000)",
    "DELETE FROM t WHERE x % 3 = 0",
    "UPDATE t SET y = 1 WHERE x < 1000",
    "CREATE OR REPLACE TABLE u AS SELECT * FROM t WHERE y > 0.5",
    "DROP TABLE IF EXISTS u",
    "INSERT INTO t VALUES (1, 2, 'three')",
)


class Made:
    """A database, its copier, and its versions."""

    def __init__(self, folder: Path, block_size: int) -> None:
        self.file = folder / "w.duckdb"
        duckdb.connect(str(folder / "empty.duckdb")).close()
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{self.file}' AS w (BLOCK_SIZE {block_size})")
            connection.execute("CREATE TABLE w.t (x BIGINT, y DOUBLE, z VARCHAR)")
        self.copier = Copier(self.file, folder / "snapshots", Cancelling())
        self.version = 0

    def step(self, *statements: str) -> Look:
        """Change the database, publish it, and what a feeder is told of that."""
        with duckdb.connect(str(self.file), config={"wal_autocheckpoint": "1TB"}) as connection:
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            for statement in statements:
                connection.execute(statement)
            connection.execute("CHECKPOINT")
        self.version += 1
        published = self.copier.publish(self.version, [], keep=2)
        while self.copier.idle_step():
            pass
        manifest = published.manifest
        return Look(self.version, str(published.path), [], manifest.changed_since, manifest.changed)


@pytest.fixture(params=[262144, 16384])
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Made]:
    database = Made(tmp_path, request.param)
    yield database
    database.copier.close()


def test_told_or_not_the_tree_is_the_same(made: Made) -> None:
    """At each of some versions, and each block can be had; what is hashed follows the change where it is known."""
    rng = random.Random(7)
    following = Feeder()
    sealer = Sealer()
    hashed = []
    for number in range(8):
        look = made.step(STEPS[number] if number < len(STEPS) else rng.choice(STEPS))
        described, digests = following.look(look)
        all_anew, all_digests = Feeder().look(Look(look.version, look.path, []))
        assert digests == all_digests
        assert described["pages"] == all_anew["pages"]
        hashed.append((described["hashed"], all_anew["hashed"]))
        tree = Tree(described["size_bytes"], digests)
        for block in range(len(tree)):
            sealed = following.block(tree.digest(block))
            assert sealed is not None
            assert len(sealer.open(sealed, tree.digest(block))) == block_span(block, tree.size_bytes)[1]
        following.settle([])
    assert hashed[0][0] == hashed[0][1]
    assert sum(few for few, _ in hashed[1:]) < sum(many for _, many in hashed[1:])


def test_a_fetched_copy_opens_and_has_the_same_rows(made: Made, tmp_path: Path) -> None:
    """What is free in the snapshot is zero in the copy, and the engine misses nothing."""
    made.step(*STEPS)
    look = made.step("DELETE FROM t WHERE x % 2 = 0", "DROP TABLE IF EXISTS u")
    feeder, sealer = Feeder(), Sealer()
    described, digests = feeder.look(look)
    tree = Tree(described["size_bytes"], digests)
    copy = tmp_path / "copy" / "w.duckdb"
    copy.parent.mkdir()
    with copy.open("wb") as file:
        for block in range(len(tree)):
            file.write(sealer.open(feeder.block(tree.digest(block)) or b"", tree.digest(block)))
    found = []
    for path in (Path(look.path), copy):
        with duckdb.connect(str(path), read_only=True) as connection:
            found.append(connection.execute("SELECT count(*), sum(hash(t)) FROM t").fetchall())
    assert found[0] == found[1]


def test_a_damaged_snapshot_is_not_given_out(made: Made) -> None:
    """Neither hashed as if it were right, nor sent when it changes after it was hashed."""
    look = made.step(STEPS[0])
    feeder = Feeder()
    described, digests = feeder.look(look)
    tree = Tree(described["size_bytes"], digests)
    middle = len(tree) // 2
    offset, _ = block_span(middle, tree.size_bytes)
    path = Path(look.path)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset + 100)
        byte = file.read(1)[0]
        file.seek(offset + 100)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(DatabaseUnreadable):
        feeder.block(tree.digest(middle))
    with pytest.raises(DatabaseUnreadable):
        Feeder().look(Look(look.version, look.path, []))


def test_no_snapshot_stays_open_that_nobody_fetches(made: Made) -> None:
    """An open one could not become the next; of one that has gone, nothing is given out any more."""
    look = made.step(STEPS[0])
    feeder = Feeder()
    _, digests = feeder.look(look)
    offered = feeder._offered[look.version]
    assert offered.descriptor is not None
    feeder.settle([look.version])
    assert offered.descriptor is not None
    feeder.settle([])
    assert offered.descriptor is None
    Path(look.path).unlink()
    assert feeder.block(digests[:32]) is None
    with pytest.raises(SnapshotNotFound):
        Feeder().look(Look(look.version, look.path, []))
