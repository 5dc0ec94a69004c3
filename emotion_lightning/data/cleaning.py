"""What is cleaned out of texts before they are tokenized: off unless asked for, and stored with the model."""

import html
import re
from collections.abc import Callable, Sequence

from emotion_lightning.config import CleaningStep

_NEWLINES = re.compile(r"(\\r)?\\n|\\r")
# Up to what no address holds: white space, quotes, the backslash of a literal \n, letters beyond ASCII.
_URL = re.compile(r"(https?://|www\.)[!#-&(-;=?-\[\]-~]+", re.IGNORECASE)
# A name on X has up to 15 of these; an e-mail address has something before its @.
_USER = re.compile(r"(?<![\w@.])@\w{1,15}\b")


def cleaner(steps: Sequence[CleaningStep]) -> Callable[[str], str]:
    r"""A function that cleans a text, in one order whatever the order of the steps.

    Users and URLs become @user and http, as in TweetEval (Barbieri et al., 2020), whose models know them so.

    >>> cleaner(list(CleaningStep))(r"@anna1 so &lt;3 this\nhttps://t.co/x &amp; you")
    '@user so <3 this http & you'
    """
    chosen = [change for step, change in _CHANGES.items() if step in steps]

    def clean(text: str) -> str:
        for change in chosen:
            text = change(text)
        return text

    return clean


def _name_emojis(text: str) -> str:
    if text.isascii():
        return text
    import emoji

    return emoji.replace_emoji(text, lambda _, data: f" {data['en'].strip(':').replace('_', ' ')} ")


_CHANGES: dict[CleaningStep, Callable[[str], str]] = {
    CleaningStep.newlines: lambda text: _NEWLINES.sub(" ", text),
    CleaningStep.urls: lambda text: _URL.sub("http", text),
    CleaningStep.users: lambda text: _USER.sub("@user", text),
    # Last: what it brings out is meant literally.
    CleaningStep.html: html.unescape,
    # After it, since &#128514; is one too.
    CleaningStep.emojis: _name_emojis,
}
