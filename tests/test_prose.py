"""The prose stays plain: limits on what `support/prose.py` measures."""

import prose

# Phrases in text that goes into the files of datasets, whose bytes are fixed.
WRITTEN = {
    "gqn_data/publish/card.py",
    "gqn_data/publish/croissant.py",
    "gqn_data/publish/provenance.py",
    "gqn_data/schema/catalog.py",
}


def test_retired_phrases_do_not_come_back():
    found = prose.retired(prose.files_of())
    new = [one for one in found if str(one.path.relative_to(prose.ROOT)) not in WRITTEN]
    assert not new, "\n".join(f"{one.path}:{one.line}: ...{one.text}... -> {one.better}" for one in new)
    assert len(found) <= 10


def test_docstrings_of_functions_begin_with_a_verb():
    docstrings = prose.docstrings(prose.files_of(("gqn_data", "gqn_model", "cli.py", "examples", "benchmarks")))
    bare = prose.without_verb(docstrings)
    assert len(bare) <= 0.02 * len(docstrings), [(str(one.path), one.name) for one in bare]


def test_sentences_of_the_docs_are_short():
    assert prose.words_a_sentence(prose.files_of(("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs"))) <= 19


def test_the_measures_find_what_they_look_for(tmp_path, monkeypatch):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    (tmp_path / "old.py").write_text('def f():\n    """The result, which tells what is whole."""\n')
    (tmp_path / "old.md").write_text("One two three four. " + "word " * 30 + ".\n")
    files = prose.files_of(("old.py", "old.md"))
    assert {one.text.strip() for one in prose.retired(files)}
    assert [one.name for one in prose.without_verb(prose.docstrings(files))] == ["f"]
    assert prose.words_a_sentence(files) == 17
