"""A template around every text: a question to an instruction model, or the names of the labels for an encoder.

What stands before and after a text is turned into tokens once, when a training starts, and these are stored with the
model. So prediction, export and serving need no tokenizer's chat template, and an answer cannot change with one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from emotion_lightning import config
from emotion_lightning.data.conversations import Context, context_of
from emotion_lightning.data.long_texts import token_limit
from emotion_lightning.errors import UserError, first_line

ROOM = 8
"""Tokens that a template must leave for the text."""
_TEXT, _LABELS = config.PLACES


@dataclass(frozen=True)
class Template:
    """What stands around every text.

    Attributes:
        text: the template for readers: with the names of the labels, and with {text} in the place of the text.
        before: ids of the tokens before a text, special tokens included.
        space: spaces that belong to the start of each text, because the word pieces of most tokenizers begin with one.
        after: ids of the tokens after a text, special tokens included.
    """

    text: str
    before: list[int]
    space: str
    after: list[int]

    @property
    def length(self) -> int:
        """Number of tokens around a text."""
        return len(self.before) + len(self.after)

    @property
    def largest_token(self) -> int:
        """The largest id of its tokens; 0 if it has none."""
        return max([*self.before, *self.after], default=0)

    def around(self, ids: list[int]) -> list[int]:
        """Return the ids of a text with those of the template around them."""
        return [*self.before, *ids, *self.after]

    @property
    def has_words(self) -> bool:
        """Whether it is more than the special tokens around a text."""
        return self.text != _TEXT

    def cost(self, max_tokens: int) -> str:
        """Return a sentence about the tokens that the template takes."""
        left = max_tokens - self.length
        return f"data.template takes {self.length} of data.max_tokens={max_tokens}, and leaves {left} for the text"

    def plain(self) -> dict[str, Any]:
        """Return the form that is stored as JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> "Template":
        """Read what `plain` returns.

        Raises:
            TypeError or ValueError: an entry is missing, unknown, or no text or token ids.
        """
        template = cls(**content)
        for ids in (template.before, template.after):
            if not isinstance(ids, list) or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
                raise ValueError("the template holds something other than token ids")
        if not isinstance(template.text, str) or not isinstance(template.space, str) or template.space.strip(" "):
            raise ValueError("the template holds something other than texts")
        return template


def read_template(settings: config.Batches, labels: Sequence[str], tokenizer: Any) -> Template | None:
    """Return the template of these settings, in the tokens of a tokenizer; None if texts stand by themselves.

    Where texts are cut or joined in a way that tokenizers do not know, the special tokens are a template without words.

    Args:
        settings: their placeholders are checked already.
        labels: names for {labels}, in their order.
        tokenizer: of the network.

    Raises:
        UserError: the tokenizer has no chat template or cannot use it, or too few tokens are left for a text.
    """
    if settings.template is None:
        if settings.long_texts is config.LongTexts.cut_end and context_of(settings) is None:
            return None
        start, end = _special_tokens(tokenizer)
        return Template(text=_TEXT, before=start, space="", after=end)
    chat = settings.template == config.CHAT
    whole = _rendered(tokenizer, settings.question) if chat else settings.template
    # The labels are filled in last: a name that looks like {text} stays a name.
    before, after = (part.replace(_LABELS, ", ".join(labels)) for part in whole.split(_TEXT))
    start, end = ([], []) if chat else _special_tokens(tokenizer)
    lead, space = _start_of_text(tokenizer, before)
    template = Template(
        text=f"{before}{_TEXT}{after}",
        before=start + _ids(tokenizer, lead),
        space=space,
        after=_end_ids(tokenizer, after) + end,
    )
    limit = token_limit(settings)
    if limit - template.length < ROOM:
        raise UserError(
            f"{template.cost(limit)}, which needs {ROOM} at least; set "
            f"data.max_tokens={template.length + ROOM} or more, or shorten the template."
        )
    if template.after[-1:] == [tokenizer.pad_token_id]:
        # transformers' own class looks for the last token that is no padding, and would read the one before it.
        raise UserError(
            f"data.template ends with {tokenizer.pad_token}, which this tokenizer pads with; end it with another token."
        )
    return template


def read_context(settings: config.Batches, tokenizer: Any) -> Context | None:
    """Return how these settings join the turns before a text to it, in the tokens of a tokenizer; None: not at all.

    Raises:
        UserError: the separator has no tokens.
    """
    context = context_of(settings)
    if context is None or not isinstance(settings, config.Table):
        return None
    separator = settings.context_separator
    if separator is None and tokenizer.sep_token_id is not None:
        return replace(context, separator=[tokenizer.sep_token_id])
    ids = _end_ids(tokenizer, "\n" if separator is None else separator)
    if not ids:
        raise UserError(
            f"data.context_separator={separator!r} has no tokens in this tokenizer, so turns would grow together; give "
            "another."
        )
    return replace(context, separator=ids)


def _rendered(tokenizer: Any, question: str) -> str:
    """Return the tokenizer's chat template around the question, up to where the answer would begin."""
    mend = "give a template of your own, such as data.template='{text} Emotions:'"
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(f"data.template={config.CHAT}: the tokenizer of this model has no chat template; {mend}.")
    try:
        # Models that can think before they answer are asked not to; other templates ignore this.
        found: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except Exception as error:  # the template is a program of the model's authors and may raise anything
        raise UserError(
            f"data.template={config.CHAT}: the chat template of this tokenizer fails ({first_line(error)}); {mend}."
        ) from error
    if found.count(_TEXT) != 1:
        raise UserError(
            f"data.template={config.CHAT}: the chat template of this tokenizer does not repeat data.question once and "
            f"as it is; {mend}."
        )
    return found


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text without the tokenizer's own special tokens; those in the text are read as such."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and after every text."""
    whole, bare = list(tokenizer("a")["input_ids"]), _ids(tokenizer, "a")
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _end_ids(tokenizer: Any, after: str) -> list[int]:
    """Return the ids of what stands after a text, as the tokenizer reads it there.

    Some tokenizers put a space before every text, which must not come between a text and what stands after it.
    """
    bare, whole = _ids(tokenizer, "a"), _ids(tokenizer, "a" + after)
    # Where the two grow together, as letters do, the end is tokenized by itself, so that no text can change it.
    return whole[len(bare) :] if whole[: len(bare)] == bare else _ids(tokenizer, after)


def _start_of_text(tokenizer: Any, before: str) -> tuple[str, str]:
    """Divide the text before {text} into what is tokenized with it, and the spaces that each text begins with.

    Most tokenizers have word pieces that begin with a space, and some add that space to every text themselves. So the
    text gets the spaces, or none, whichever gives the tokens of the whole.
    """
    lead = before.rstrip(" ")
    space = before[len(lead) :]
    whole = _ids(tokenizer, before + "a")
    same = (space_ for space_ in (space, "") if _ids(tokenizer, lead) + _ids(tokenizer, space_ + "a") == whole)
    return lead, next(same, space)
