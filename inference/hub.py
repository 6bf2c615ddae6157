"""Finds the directory of a checkpoint: the embedded voice, one on this machine, or one on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from inference.errors import CheckpointError
from inference.extras import install_command

DEFAULT_REPOSITORY = "fishaudio/fish-speech-1.5"
PINNED = {DEFAULT_REPOSITORY: "268b6ec86243dd683bc78dab7e9a6cedf9191f2a"}
"""Default revisions, so that the same command loads the same weights next year."""
EMBEDDED_VOICE = Path(__file__).parent / "model" / "minnow"
_FILES = (
    "config.json",
    "generation_config.json",
    "model.pth",
    "model.safetensors",
    "tokenizer.tiktoken",
    "firefly-gan-vq-fsq-*-generator.*",
    "LICENSE*",
    "README.md",
)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def locate(checkpoint: str | Path | None) -> Path:
    """The directory of a checkpoint: the embedded voice for None, a directory as it is, a repository downloaded.

    Raises CheckpointError when none can be found.
    """
    if checkpoint is None:
        if EMBEDDED_VOICE.is_dir():
            return EMBEDDED_VOICE
        raise CheckpointError(
            "no checkpoint was named and no voice is embedded in this installation; name a directory or a repository, for instance "
            f"--checkpoint {DEFAULT_REPOSITORY}, or make one that speaks noise with `fishserve random-checkpoint DIR`"
        )
    if not Path(checkpoint).exists() and is_repository(str(checkpoint)):
        return fetch(str(checkpoint))
    return Path(checkpoint)


def name_of(checkpoint: Path) -> str:
    """What to call the model in a directory: the repository it was downloaded from, else the directory's name."""
    if checkpoint.parent.name == "snapshots":
        return checkpoint.parent.parent.name.removeprefix("models--").replace("--", "/")
    return checkpoint.resolve().name


def is_repository(name: str) -> bool:
    """Whether a name looks like `owner/name` or `owner/name@revision`."""
    return _REPOSITORY.fullmatch(name) is not None and not name.startswith((".", "/", "~"))


def fetch(name: str) -> Path:
    """The local directory of a repository, downloading missing files. Interrupted downloads resume where they stopped.

    `HF_TOKEN` is used when set. Raises CheckpointError saying what to do when access is refused or the network is down.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise CheckpointError(
            f"downloading {name} needs the package huggingface_hub, which is not installed; name a local directory, or {install_command('engine')} installs it"
        ) from None
    repository, _, revision = name.partition("@")
    revision = revision or PINNED.get(repository, "main")
    page = f"https://huggingface.co/{repository}"
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FILES)))
    except GatedRepoError:
        raise CheckpointError(
            f"{repository} is gated: accept its terms at {page}, make a token at https://huggingface.co/settings/tokens, and set HF_TOKEN to it"
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{repository} has no revision {revision!r}; see {page}/commits/main") from None
    except RepositoryNotFoundError:
        raise CheckpointError(f"there is no repository {repository}, or HF_TOKEN may not see it; check the name at {page}") from None
    except LocalEntryNotFoundError as e:
        raise CheckpointError(
            f"{repository} is no directory here, it is not in the Hub's cache on this machine, and the Hub cannot be reached ({_reason(e)}); check the network, or copy the files here and name their directory"
        ) from None
    except HfHubHTTPError as e:
        raise CheckpointError(f"the Hub refused {repository}: {_reason(e)}") from None
    except Exception as e:  # its transport raises other errors, such as for a connection that keeps breaking
        raise CheckpointError(f"{repository} could not be downloaded: {_reason(e)}; run the same command again to go on") from None


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
