"""A program that iterates two loaders at once, for tests of how such programs end.

Arguments: path, `fork` or `spawn`, workers of each loader, and how it goes on after the first batches:
`loop` for ever; `wait` in the body of the loop; `exit` while both iterations are held; `error` in the body of the loop;
`break` and to the end. Prints "begun" and the numbers of the workers first.
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
