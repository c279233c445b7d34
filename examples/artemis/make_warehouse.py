"""Lay out the Artemis example in a folder: a warehouse with a table of images, and the jobs that fetch their thumbnails.

    python examples/artemis/make_warehouse.py demo/artemis --gallery http://127.0.0.1:8500

What is there already is left alone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import duckdb

IMAGES = 2000
STORAGE_VERSION = "v1.5.0"  # Why: DuckDB 1.5 and 2.0 both read and write it, whichever made the file.
BESIDE = Path(__file__).parent

TABLE = """
CREATE TABLE dim_image (
    source_image_id  VARCHAR PRIMARY KEY,
    thumb_url        VARCHAR NOT NULL,
    thumb_downloaded BOOLEAN NOT NULL DEFAULT false,
    thumb_bytes      BIGINT,
    thumb_sha256     VARCHAR,
    thumb_error      VARCHAR
)"""


def build(folder: Path, gallery: str, images: int = IMAGES) -> Path:
    """The warehouse's file, made with its jobs where they are missing."""
    home = folder / ".pondkeeper"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for source, target in (("pondkeeper.toml", home / "pondkeeper.toml"), ("thumbnails.py", folder / "thumbnails.py")):
        if not target.exists():
            shutil.copyfile(BESIDE / source, target)
    file = folder / "artemis.duckdb"
    if file.exists():
        return file
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{file}' AS warehouse (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute("USE warehouse")
        connection.execute(TABLE)
        connection.execute(
            "INSERT INTO dim_image (source_image_id, thumb_url) SELECT format('img-{:05d}', n), format('{}/thumbs/img-{:05d}.png', $url, n)"
            " FROM range(1, $images + 1) numbers(n)",
            {"url": gallery.rstrip("/"), "images": images},
        )
        connection.execute("CHECKPOINT")
        connection.execute("USE memory; DETACH warehouse")
    return file


def main() -> None:
    """The command: lay it out unless it is there."""
    parser = argparse.ArgumentParser(description="Lay out the Artemis example.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gallery", default="http://127.0.0.1:8500", metavar="URL", help="where the images are (default: %(default)s)")
    parser.add_argument("--images", type=int, default=IMAGES, help="how many (default: %(default)s)")
    options = parser.parse_args()
    print(f"the warehouse is {build(options.folder, options.gallery, options.images)}", file=sys.stderr)


if __name__ == "__main__":
    main()
