"""The process that calibrates a cell, with the imports of a worker that trains one: JSON in, JSON out."""

from __future__ import annotations

import json
import os
import sys

from babeltune import lean
from babeltune.errors import BabelTuneError


def main() -> int:
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.read())
    lean.import_libraries(quantises=asked["quantises"])
    from babeltune.plan import calibrating

    try:
        told = calibrating.measure(asked)
    except BabelTuneError as error:
        told = {"problem": str(error)}
    json.dump(told, words)
    words.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
