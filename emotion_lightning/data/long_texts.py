"""Texts that are longer than data.max_tokens: what is cut from them, or how they are read in overlapping pieces."""

import dataclasses
import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.data.conversations import context_of
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

FEW = 0.001
"""Up to this share of the texts, nobody needs to care that they are cut."""
_MANY = 0.03
"""A larger share of cut texts is a warning."""


@dataclass(frozen=True)
class LongTexts:
    """How a text that is too long is read. None stands for the default: its end is cut.

    Attributes:
        way: what is cut, or whether the text is read in pieces.
        overlap: number of tokens that neighbouring pieces share at least.
        most: maximum number of pieces of a text.
        join: how the logits of the pieces become those of the text.
    """

    way: config.LongTexts
    overlap: int
    most: int
    join: config.JoinWindows

    @property
    def in_pieces(self) -> bool:
        """Whether long texts are read in several pieces."""
        return self.way is config.LongTexts.windows

    def pieces(self, ids: list[int], room: int) -> list[list[int]]:
        """Return what is read of a text: one piece, or with windows several, of up to `room` tokens each.

        Args:
            ids: all tokens of the text, without special tokens.
            room: tokens that a piece has for the text.
        """
        if len(ids) <= room:
            return [ids]
        match self.way:
            case config.LongTexts.cut_start:
                return [ids[-room:]]
            case config.LongTexts.middle:
                tail = room // 2
                return [ids[: room - tail] + ids[len(ids) - tail :]]
            case config.LongTexts.windows:
                return [ids[start : start + room] for start in self._starts(len(ids), room)]
        return [ids[:room]]

    def counts(self, lengths: np.ndarray, room: int) -> np.ndarray:
        """Return the number of pieces that texts of these lengths need, [text], also where it is more than `most`."""
        return 1 + np.maximum(0, -(-(lengths - room) // (room - self.overlap)))

    def _starts(self, length: int, room: int) -> list[int]:
        """Where the pieces of a text start: spread evenly, so that all of them are full and share about as much."""
        needed = int(self.counts(np.array([length]), room)[0])
        count = min(needed, self.most)
        rest = (length if count == needed else room + (count - 1) * (room - self.overlap)) - room
        return [rest * i // (count - 1) for i in range(count)]

    def plain(self) -> dict[str, Any]:
        """Return the form that is stored as JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> "LongTexts":
        """Read what `plain` returns.

        Raises:
            TypeError or ValueError: an entry is missing, unknown, or no such value.
        """
        found = cls(**content)
        if type(found.overlap) is not int or type(found.most) is not int or found.overlap < 0 or found.most < 2:
            raise ValueError("the pieces of long texts have an impossible size or number")
        return dataclasses.replace(found, way=config.LongTexts(found.way), join=config.JoinWindows(found.join))


def read_long_texts(settings: config.Batches, *, around: int) -> LongTexts | None:
    """Return how the settings say that long texts are read; None: their end is cut, as by the tokenizer itself.

    Args:
        settings: data settings.
        around: number of special tokens and tokens of the template around each piece.

    Raises:
        UserError: pieces have no room for a text, or for their overlap.
    """
    if settings.long_texts is config.LongTexts.cut_end and context_of(settings) is None:
        return None
    room = token_limit(settings) - around
    if room < 1:
        raise UserError(
            f"data.max_tokens={settings.max_tokens} leaves no token for a text: {around} stand around it. Raise it."
        )
    overlap = room // 4 if settings.window_overlap is None else settings.window_overlap
    if settings.long_texts is config.LongTexts.windows and overlap >= room:
        raise UserError(
            f"data.window_overlap={overlap} leaves nothing of a piece for new tokens: data.max_tokens="
            f"{settings.max_tokens} has room for {room} tokens of a text. Lower it, or raise data.max_tokens."
        )
    return LongTexts(settings.long_texts, overlap, settings.max_windows, settings.join_windows)


def token_limit(settings: config.Batches) -> int:
    """Return data.max_tokens as a number; `auto` is replaced before anything asks for it."""
    assert isinstance(settings.max_tokens, int)
    return settings.max_tokens


def enough_tokens(lengths: np.ndarray) -> int:
    """Return the smallest multiple of 8 that cuts at most about 0.1 % of texts of these lengths.

    >>> enough_tokens(np.array([3, 50, 12]))
    56
    """
    return int(-(-np.quantile(lengths, 1 - FEW, method="higher") // 8) * 8)


# ------------------------------------------------------------------------------------------------------------ telling


@dataclass
class Lengths:
    """How texts fit into data.max_tokens.

    Attributes:
        tokens: number of tokens of each text before anything is cut, with special tokens and those of the template.
        limit: data.max_tokens.
        long_texts: how long texts are read; None: their end is cut.
        around: number of special tokens and tokens of the template around each piece.
    """

    tokens: np.ndarray
    limit: int
    long_texts: LongTexts | None
    around: int

    @property
    def longer(self) -> int:
        """Number of texts that are longer than data.max_tokens."""
        return int((self.tokens > self.limit).sum())

    @property
    def share(self) -> float:
        """Fraction of the texts that are longer than data.max_tokens."""
        return self.longer / max(1, len(self.tokens))

    def sentence(self) -> str:
        """Return a sentence about the texts that are longer than data.max_tokens."""
        longest = int(self.tokens.max())
        if not self.longer:
            return f"data.max_tokens={self.limit} cuts no text; the longest has {longest:,} tokens."
        if self.long_texts is not None and self.long_texts.in_pieces:
            return self._of_pieces(self.long_texts)
        if self.share <= FEW:
            return f"data.max_tokens={self.limit} cuts hardly any text ({self.share:.2%})."
        return (
            f"data.max_tokens={self.limit} cuts {percent(self.share)} of the texts; {enough_tokens(self.tokens)} "
            f"would cut hardly any, and the longest has {longest:,} tokens."
        )

    def _of_pieces(self, long_texts: LongTexts) -> str:
        needed = long_texts.counts(self.tokens - self.around, self.limit - self.around)
        read = np.minimum(needed, long_texts.most)
        several = read[needed > 1]
        sentence = (
            f"data.long_texts=windows reads {percent(self.share)} of the texts in pieces of data.max_tokens="
            f"{self.limit}, {several.mean():.1f} of them on average and {several.max()} at most."
        )
        if over := int((needed > long_texts.most).sum()):
            sentence += (
                f" {over:,} text{' has' if over == 1 else 's have'} more than data.max_windows={long_texts.most} "
                f"pieces (up to {needed.max()}), and the rest of {'it' if over == 1 else 'them'} is cut."
            )
        return sentence

    def tell(self) -> None:
        """Log how many texts are longer, if any are; a warning if many of them are cut."""
        if not self.longer:
            return
        in_pieces = self.long_texts is not None and self.long_texts.in_pieces
        if in_pieces or self.share <= _MANY:
            log.info("%s", self.sentence())
            return
        mend = "" if self.long_texts is not None else ", or data.long_texts=windows reads all of each text"
        log.warning("%s Raise it (data.max_tokens=auto)%s.", self.sentence(), mend)


def percent(share: float) -> str:
    """A share, such as 2.8%, with as many digits as a small one needs.

    >>> [percent(share) for share in (0.028, 0.0004, 1)]
    ['2.8%', '0.04%', '100.0%']
    """
    return f"{share:.1%}" if share >= FEW else f"{share:.2%}"
