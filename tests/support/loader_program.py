"""Program that iterates two loaders concurrently, for tests of how such programs end.

Arguments: path, `fork` or `spawn`, workers per loader, and what happens after the first batches: `loop` iterates
forever, `wait` sleeps in the loop, `exit` exits during both iterations, `error` raises in the loop, `break` leaves the
loop. Prints "begun" and the process ids of the workers first.
"""

import multiprocessing
import sys
import time

from gqn_data.loader import SceneLoader


def main(path, start, workers, then):
    options = {"batch_size": 2, "start": start, "workers": int(workers)}
    first, second = SceneLoader(path, **options), SceneLoader(path, seed=1, **options)
    for number, _ in enumerate(zip(first, second)):
        if number == 1:
            print("begun", *sorted(child.pid for child in multiprocessing.active_children()), flush=True)
        elif number < 1 or then == "loop":
            continue
        match then:
            case "wait":
                time.sleep(600)
            case "exit":
                sys.exit(3)
            case "error":
                raise ZeroDivisionError
            case "break":
                break
    print("left", *multiprocessing.active_children(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
