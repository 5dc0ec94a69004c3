"""Optional cleaning of texts before tokenization; the chosen steps are stored with the model."""

import html
import re
from collections.abc import Callable, Sequence

from emotion_lightning.config import CleaningStep

_NEWLINES = re.compile(r"(\\r)?\\n|\\r")
# A URL ends before white space, quotes, angle brackets, the backslash of a literal \n, and letters beyond ASCII.
_URL = re.compile(r"(https?://|www\.)[!#-&(-;=?-\[\]-~]+", re.IGNORECASE)
# User names on X have up to 15 word characters. The lookbehind excludes e-mail addresses.
_USER = re.compile(r"(?<![\w@.])@\w{1,15}\b")


def cleaner(steps: Sequence[CleaningStep]) -> Callable[[str], str]:
    r"""Return a function that cleans a text; the order of the steps is fixed.

    Users and URLs become @user and http, as in TweetEval (Barbieri et al., 2020) and in the training of its models.

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
    # After the steps above, because the characters that it unescapes are meant literally.
    CleaningStep.html: html.unescape,
    # After html, because &#128514; is an emoji too.
    CleaningStep.emojis: _name_emojis,
}
