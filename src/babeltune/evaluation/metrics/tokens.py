"""What BLEU, GLEU and ROUGE of the published Chinese scripts count, by choice: characters, words of jieba, or what spaces part."""

from __future__ import annotations

import functools
import unicodedata
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from babeltune.errors import EvalError, problem

TOKENS = ("char", "jieba", "space")
"""char: each character but spaces; jieba: Chinese words; space: what stands between spaces, by which a Chinese sentence is one
token."""


@functools.lru_cache(maxsize=2**15)
def tokens(text: str, kind: str) -> tuple[str, ...]:
    """The text in Unicode NFC as tokens of a kind of TOKENS; none of them holds a space."""
    normal = unicodedata.normalize("NFC", text)
    match kind:
        case "char":
            return tuple("".join(normal.split()))
        case "space":
            return tuple(normal.split())
        case _:
            return tuple(part for token in _jieba().lcut(normal) for part in token.split())


def signature(kind: str) -> str:
    return f"jieba-{_version()}" if kind == "jieba" else kind


def jieba_is_there() -> bool:
    try:
        version("jieba")
    except PackageNotFoundError:
        return False
    return True


def _version() -> str:
    if not jieba_is_there():
        raise EvalError(problem("evaluation.metrics", "jieba, which is not installed", "the package", 'pip install ".[zh]"'))
    return version("jieba")


@functools.cache
def _jieba() -> Any:
    """A tokenizer of its own with jieba's dictionary, read from the package: the cache that jieba keeps in /tmp is anybody's."""
    _version()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it reads its files through pkg_resources, which warns of its own end
        import jieba

        tokenizer = jieba.Tokenizer()
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer
