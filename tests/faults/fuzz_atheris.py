"""Coverage-guided fuzzing of the parsers. A separate program, not a test; needs `pip install atheris`.

    python tests/faults/fuzz_atheris.py message -max_total_time=600

The first argument names a target of fuzz_targets.py; libFuzzer takes the rest. Inputs that reach new code are kept in
.fuzz/TARGET/, where the next run resumes. An input that shows a fault is written to .fuzz/TARGET-crash-...: add its
bytes to FOUND of test_fuzz_parsers.py.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main():
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    import atheris

    with atheris.instrument_imports(include=["gqn_data"]):
        from fuzz_targets import TARGETS

    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"unknown target {name!r}, expected one of: {', '.join(TARGETS)}")
    target, good = TARGETS[name]
    word = name.replace(" ", "-")
    corpus = ROOT / ".fuzz" / word
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "good").write_bytes(good())
    options = [f"-artifact_prefix={corpus.parent / word}-", *sys.argv[2:], str(corpus)]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
