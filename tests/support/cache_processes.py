"""Program run by tests of the cache: python -m cache_processes FOLDER FILES LIMIT SECONDS SEED."""

import random
import sys
from pathlib import Path

from made_paths import MadePlace

from gqn_data.cache.shard_cache import ShardCache
from gqn_data.io.atomic import sha256_of
from gqn_data.schema.manifest import FileRow


def fill(folder, files, limit, seconds, seed):
    """Get every file once, in an order drawn from `seed`, and print how many had the right bytes."""
    cache = ShardCache(Path(folder), limit)
    rows = []
    for line in Path(files, "rows").read_text().splitlines():
        name, size, sha256 = line.split()
        rows.append(FileRow(name=name, bytes=int(size), sha256=sha256))
    random.Random(seed).shuffle(rows)
    right = 0
    for row in rows:
        place = MadePlace(Path(files, row.name), seconds=seconds)
        while True:
            try:
                right += sha256_of(cache.get(place, row)) == row.sha256
                break
            except FileNotFoundError:
                continue  # another process has removed it
    print(right, flush=True)


if __name__ == "__main__":
    fill(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
