"""Write into the documents what their commands really print:  python -m tests.docs.record [DOCUMENT…]

What agrees with the document is left as it is, so that a run changes only what has changed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs.sessions import Document, agrees, play
from tests.docs.subjects import played


def record(path: Path) -> int:
    """Play one document and put its real output in; how many steps were changed."""
    document = Document.read(path)
    changed = []
    with tempfile.TemporaryDirectory() as folder:
        for step, output in play(document, Path(folder)):
            if not agrees(step, output):
                changed.append((step.span, output))
    for (begin, end), output in reversed(changed):
        document.lines[begin:end] = output
    if changed:
        path.write_text("\n".join(document.lines) + "\n")
    return len(changed)


def main() -> None:
    """Record the documents that are named, or all."""
    for path in map(Path, sys.argv[1:]) if len(sys.argv) > 1 else played():
        print(f"{path}: {record(path)} outputs changed")


if __name__ == "__main__":
    main()
