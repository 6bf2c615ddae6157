"""Finds the files of a checkpoint: the embedded voice's, on this machine, or on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from inference.errors import CheckpointError
from inference.extras import install_command
from inference.model.layout import (
    CODEC_PATTERN,
    DEFAULT_ALPHA,
    WEIGHT_SUFFIXES,
    Adapter,
    Layout,
    adapter_file,
    codec_file,
    lacking,
    layout_of,
)

DEFAULT_REPOSITORY = "fishaudio/fish-speech-1.5"
PINNED = {DEFAULT_REPOSITORY: "268b6ec86243dd683bc78dab7e9a6cedf9191f2a"}
"""Default revisions, so that the same command loads the same weights next year."""
MAX_ALPHA = 10_000
EMBEDDED_VOICE = Path(__file__).parent / "model" / "minnow"
_PARTS = ("config.json", "generation_config.json", "tokenizer.tiktoken", "tokenizer.json", CODEC_PATTERN, "LICENSE*", "README.md")
_MODEL = ("model.pth", "model.safetensors")
_BASES = ("fish-speech-1.5", "checkpoints/fish-speech-1.5")
"""Where FishSpeech's own guide puts its checkpoint: beside the fine-tuned ones, or in the working directory."""
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


def complete(path: Path, codec: str | None = None, adapter: str | None = None) -> Layout:
    """The files of the checkpoint at `path`, each beside its weights or, if it is not there, where FishSpeech 1.5's own lie.

    `codec` is a file, a directory or a repository whose codec replaces the checkpoint's; `adapter` is `PATH` or `PATH:alpha`.
    Raises CheckpointError when a file is nowhere.
    """
    own_codec = None if codec is None else locate_codec(codec)
    lacks = [part for part in lacking(path) if own_codec is None or part != "a codec"]
    base = find_base(path, lacks) if lacks else None
    return layout_of(path, own_codec, base, None if adapter is None else locate_adapter(adapter))


def find_base(path: Path, lacks: list[str]) -> Path:
    """The directory of FishSpeech 1.5's own files, for a checkpoint that lacks some of them: here, or downloaded without the model."""
    if found := local_base(path):
        return found
    try:
        return fetch(DEFAULT_REPOSITORY, _PARTS)
    except CheckpointError as e:
        raise CheckpointError(
            f"{path} lacks {' and '.join(lacks)}: put what is missing beside it, or name a codec with FISHSERVE_CODEC, "
            f"since that of FishSpeech 1.5 could not be had: {e}"
        ) from None


def local_base(path: Path) -> Path | None:
    """FishSpeech 1.5's directory beside a checkpoint, or in the working directory."""
    places = (path.absolute().parent / _BASES[0], *map(Path, _BASES))
    return next((place for place in places if (place / "config.json").is_file() and place.absolute() != path.absolute()), None)


def locate_codec(codec: str) -> Path:
    """The file of a codec: itself, the one in a directory, or one in a repository, downloaded. Raises CheckpointError."""
    path = Path(codec)
    if not path.exists() and is_repository(codec):
        path = fetch(codec, (CODEC_PATTERN,))
    if found := path if path.is_file() else codec_file(path):
        return found
    raise CheckpointError(f"FISHSERVE_CODEC is {codec!r}, where no {CODEC_PATTERN} is; name its file or its directory")


def locate_adapter(adapter: str) -> Adapter:
    """An adapter named as `PATH` or `PATH:alpha`: a file, a directory with one, or a repository with one. Raises CheckpointError."""
    name, colon, number = adapter.rpartition(":")
    alpha = DEFAULT_ALPHA
    if colon and not Path(adapter).exists():
        try:
            alpha = float(number)
        except ValueError:
            raise CheckpointError(f"the adapter is {adapter!r}; after the colon comes its alpha, a number such as 16") from None
        if not 0 < alpha <= MAX_ALPHA:
            raise CheckpointError(f"the adapter's alpha is {number}; it must be above 0 and at most {MAX_ALPHA}")
    else:
        name = adapter
    path = Path(name)
    if not path.exists() and is_repository(name):
        path = fetch(name, tuple(f"*{suffix}" for suffix in WEIGHT_SUFFIXES))
    return Adapter(adapter_file(path), alpha)


def name_of(checkpoint: Path) -> str:
    """What to call the model in a directory: the repository it was downloaded from, else the directory's name."""
    if checkpoint.parent.name == "snapshots":
        return checkpoint.parent.parent.name.removeprefix("models--").replace("--", "/")
    return checkpoint.resolve().name


def is_repository(name: str) -> bool:
    """Whether a name looks like `owner/name` or `owner/name@revision`, and not like a file."""
    return _REPOSITORY.fullmatch(name) is not None and not name.startswith((".", "/", "~")) and not name.endswith(WEIGHT_SUFFIXES)


def fetch(name: str, files: tuple[str, ...] = (*_PARTS, *_MODEL)) -> Path:
    """The local directory of a repository, downloading missing files of these patterns. Interrupted downloads resume where they stopped.

    A repository without `model.pth` or `model.safetensors` may hold a `.ckpt` instead.
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
        directory = Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
        if set(_MODEL) <= set(files) and not any((directory / model).exists() for model in _MODEL):
            snapshot_download(repository, revision=revision, allow_patterns=["*.ckpt"])
        return directory
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
