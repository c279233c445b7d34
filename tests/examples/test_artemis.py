"""The Artemis example as a person plays it: 2,000 thumbnails, everything killed in the midst, and nothing missing at the end."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pondkeeper.jobs.orphans import end_orphans
from pondkeeper.jobs.status import RunStatus, status_in
from tests.support.gallery import EXAMPLE, GalleryProcess, gallery
from tests.support.keeper import KeeperProcess, pondkeeper, wait_until

IMAGES = 2000


def module(name: str) -> ModuleType:
    """A module of the example."""
    spec = importlib.util.spec_from_file_location(f"artemis_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def web() -> Iterator[GalleryProcess]:
    """Every fiftieth image is unwell at first."""
    with gallery("--unwell", "50") as web:
        yield web


def run_of(keeper: KeeperProcess, run_id: str) -> RunStatus:
    status = status_in(keeper.home.run(run_id).status_json)
    assert status is not None
    return status


def agreed(keeper: KeeperProcess, folder: Path) -> int:
    """How many images are there; each as the gallery has it, and the table row by row as the files are."""
    image = module("gallery").image
    files = {path.stem: path.read_bytes() for path in folder.glob("*.png")}
    assert [name for name, body in files.items() if body != image(name)] == []
    version = keeper.client().execute("DELETE FROM dim_image WHERE false").version
    marked = keeper.client().query("SELECT source_image_id, thumb_bytes FROM dim_image WHERE thumb_downloaded", at_least=version)
    assert dict(marked.rows) == {name: len(body) for name, body in files.items()}
    return len(files)


@pytest.mark.fault
@pytest.mark.timeout(240)  # Why longer: 2,000 files by way of three keepers, on a machine that may be crowded
def test_thumbnails_survive_the_death_of_keeper_and_run(web: GalleryProcess, tmp_path: Path) -> None:
    """Everything is killed while files come: the next keeper begins the run again, which asks for what is left. Then that
    keeper alone is killed: the run goes on without it, and is followed by the third.
    """
    file, folder = module("make_warehouse").build(tmp_path, web.url, IMAGES), tmp_path / "thumbs"
    settings = tmp_path / ".pondkeeper" / "pondkeeper.toml"
    settings.write_text(settings.read_text().replace("workers = 16", "workers = 16\nrequests_per_s = 600\nbatch = 50"))
    with KeeperProcess(file) as keeper:
        answer = pondkeeper("job", "run", "thumbnails", "--json", "--home", str(keeper.home.root))
        assert answer.returncode == 0, answer.stderr
        run_id = json.loads(answer.stdout)["run_id"]
        wait_until(lambda: len(list(folder.glob("*.png"))) >= 100, what="the first files")
        keeper.kill9()
        first = kill_run(keeper, run_id)
        there = len(list(folder.glob("*.png")))
        keeper.start()
        wait_until(lambda: run_of(keeper, run_id).attempt == 2, what="the second attempt")
        wait_until(lambda: len(list(folder.glob("*.png"))) >= there + 100, what="more files")
        keeper.kill9()
        second = run_of(keeper, run_id)
        keeper.start()
        wait_until(lambda: run_of(keeper, run_id).is_final, timeout_s=120, what="the end of the run")
        status = run_of(keeper, run_id)
        assert (status.phase, status.error, status.attempt) == ("done", None, 2)
        assert not first.is_final  # positive controls: both deaths came in its midst
        assert not second.is_final
        assert agreed(keeper, folder) == IMAGES
    assert web.tally()["200"] < 1.5 * IMAGES  # what came twice is what was under way, or had no mark yet


def kill_run(keeper: KeeperProcess, run_id: str) -> RunStatus:
    """SIGKILL to every process of the run; what it had said last."""
    status = run_of(keeper, run_id)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    end_orphans(run_id)
    return status


def test_the_same_as_a_python_job(tmp_path: Path) -> None:
    """The function of the example, with a map and a batch."""
    with gallery("--lost", "50") as web, KeeperProcess(module("make_warehouse").build(tmp_path, web.url, 60)) as keeper:
        answer = pondkeeper("job", "run", "thumbnails-in-python", "--wait", "--home", str(keeper.home.root), timeout_s=120)
        assert answer.returncode == 0, answer.stderr
        assert agreed(keeper, tmp_path / "thumbs") == 60 - 1
        assert "img-00050: Client error '404 Not Found'" in pondkeeper("job", "logs", "thumbnails-in-python", "--home", str(keeper.home.root)).stdout
