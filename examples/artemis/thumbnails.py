"""The thumbnail downloader as a Python job: workers that only fetch and write files, and marks in short transactions."""

from __future__ import annotations

from pathlib import Path

import httpx

import pondkeeper

UNDONE = "SELECT source_image_id, thumb_url FROM dim_image WHERE NOT thumb_downloaded ORDER BY source_image_id"
MARK = """
    UPDATE dim_image SET thumb_downloaded = true, thumb_bytes = batch.size_bytes
    FROM batch WHERE dim_image.source_image_id = batch.source_image_id
"""


@pondkeeper.job
def thumbnails(ctx: pondkeeper.JobContext, folder: str, workers: int = 16) -> None:
    """Fetch the thumbnail of every image that has none yet."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with ctx.read() as snapshot:
        images = snapshot.execute(UNDONE).fetchall()

    with httpx.Client(timeout=30.0) as web, ctx.batch(MARK) as marks:

        def fetch(image: tuple[str, str]) -> int:
            name, url = image
            answer = web.get(url).raise_for_status()
            unfinished = target / f".{name}.png"
            unfinished.write_bytes(answer.content)
            unfinished.replace(target / f"{name}.png")
            return len(answer.content)

        for fetched in ctx.map(fetch, images, workers=workers, unit="images"):
            if fetched.error is None:
                marks.add(source_image_id=fetched.item[0], size_bytes=fetched.value)
            else:
                ctx.say(f"{fetched.item[0]}: {fetched.error}")
