"""Upload to the Hugging Face hub, with its package `huggingface_hub` (extra `hub`).

All files of a push become visible by one commit. Large files are uploaded before it, so that an interrupted push
resumes: the hub keeps them by their content.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gqn_data.errors import (
    DestinationError,
    ExtraMissing,
    GQNError,
    OptionError,
    ShardChecksumError,
    StoreError,
    StoreRefused,
    install_hint,
)
from gqn_data.io import hub
from gqn_data.io.paths import redact
from gqn_data.progress import bar

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

MOST_FILES = 25_000  # of a commit: documentation of HfApi.create_commit
_AT_ONCE = 8  # files uploaded in parallel
_BESIDE = (".gitattributes", "README.md", "LICENSE")  # files of a repository that a push may add to


def connect(repository: hub.Repository) -> HfApi:
    """Return the client that pushes to a repository, before the work that a missing token would waste.

    Raises:
        StoreRefused: there is not a token.
        ExtraMissing: huggingface_hub is not installed.
    """
    token = hub.token()
    if not token:
        raise StoreRefused(f"{repository}: no token to write with. Set HF_TOKEN, or run `hf auth login`")
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"a push needs huggingface_hub; install it with: {install_hint('hub')}") from error
    return HfApi(endpoint=hub.endpoint(), token=token)


def upload(
    api: HfApi,
    repository: hub.Repository,
    files: Mapping[str, Path | bytes],
    *,
    marker: str,
    message: str,
    private: bool = False,
    checksums: Mapping[str, str] | None = None,
    stale: Sequence[str] = (),
) -> hub.Repository:
    """Commit files to a repository, which is created if it does not exist, and return it at the new commit.

    Args:
        api: from `connect`.
        repository: the repository.
        files: files by their path in the repository.
        marker: a path among `files` that an earlier push has written too.
        message: first line of the commit's message.
        private: create a private repository.
        checksums: SHA-256 of files by path; a file that differs is not committed.
        stale: files to remove in the same commit, if they exist.

    Raises:
        OptionError: there are too many files for a commit.
        DestinationError: the repository holds something else, or is public and `private` is True.
        ShardChecksumError: a file has changed.
        StoreRefused: the token may not write to the repository.
        StoreError: the upload failed.
    """
    if len(files) > MOST_FILES:
        raise OptionError(
            f"{repository}: {len(files):,} files, expected at most {MOST_FILES:,}; convert with a larger --shard-mb"
        )
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    name, kind = repository.name, repository.kind
    with _translate_errors(repository), _quiet():
        api.create_repo(name, repo_type=kind, private=True if private else None, exist_ok=True)
        if private and not api.repo_info(name, repo_type=kind).private:
            raise DestinationError(
                f"{repository}: is public, expected private. Change it on the hub, or push elsewhere"
            )
        present = set(api.list_repo_files(name, repo_type=kind))
        _check_contents(repository, present, marker)
        additions = [CommitOperationAdd(path, data) for path, data in files.items()]
        _upload_large(api, repository, additions)
        for addition in additions:
            expected = (checksums or {}).get(addition.path_in_repo)
            if expected is not None and (found := addition.upload_info.sha256.hex()) != expected:
                raise ShardChecksumError(
                    f"{addition.path_in_repo}: SHA-256 is {found}, expected {expected}; changed during the push. "
                    "Nothing was published; push again"
                )
        deletions = [CommitOperationDelete(path, is_folder=False) for path in stale if path in present - files.keys()]
        commit = api.create_commit(name, [*deletions, *additions], commit_message=message, repo_type=kind)
    return repository._replace(revision=commit.oid)


def _upload_large(api: HfApi, repository: hub.Repository, additions: Sequence[CommitOperationAdd]) -> None:
    """Upload the files that the hub stores outside of git, and skip the files that it has already."""
    total = sum(addition.upload_info.size for addition in additions)
    with bar(total, "B", "push", unit_scale=True) as progress:
        for first in range(0, len(additions), _AT_ONCE):
            some = additions[first : first + _AT_ONCE]
            api.preupload_lfs_files(
                repository.name, some, repo_type=repository.kind, num_threads=_AT_ONCE, free_memory=False
            )
            progress.update(sum(addition.upload_info.size for addition in some))


def _check_contents(repository: hub.Repository, present: set[str], marker: str) -> None:
    """Raise if a repository holds files that no push has written."""
    others = sorted(present - {*_BESIDE})
    if others and marker not in present:
        raise DestinationError(
            f"{repository}: holds {others[0]} and no {marker}, expected an empty repository or one of an earlier push. "
            "Push to another name"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the progress bars of the package, which appear also where stderr is not a terminal."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextlib.contextmanager
def _translate_errors(repository: hub.Repository) -> Iterator[None]:
    try:
        yield
    except GQNError:
        raise
    except Exception as error:  # noqa: BLE001  the package raises errors of three HTTP clients, and RuntimeError around them
        # The causes are hidden: their text may hold signed URLs.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        said = getattr(cause, "server_message", None) or f"{type(cause).__name__}: {cause}"
        reason = redact(" ".join(said.split()))[:300].rstrip(".")
        if status in (401, 403):
            raise StoreRefused(
                f"{repository}: the hub refused the push ({status}: {reason}), expected a token that may write to it. "
                "Set HF_TOKEN, or run `hf auth login`"
            ) from None
        raise StoreError(f"{repository}: {reason}. Nothing was published; push again to resume") from None
