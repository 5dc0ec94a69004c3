"""What a request holds and what is answered, as types that check requests and write the OpenAPI description."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]  # else true would be 1


class Ask(BaseModel):
    """Texts to label."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"texts": ["We won!", "Nobody came to my birthday."]},
                {"texts": ["We won!"], "thresholds": {"joy": 0.7}},
                {"texts": ["We won!"], "thresholds": 0.5, "explain": True},
            ]
        },
    )

    texts: Annotated[list[Annotated[str, Field(strict=True)]], Field(min_length=1)]
    """The texts, at least one. `GET /info` tells how many, and how long, at most."""
    explain: Annotated[bool, Field(strict=True)] = False
    """Also answer which words spoke for each label. This takes many times as long."""
    thresholds: Threshold | dict[str, Threshold] | None = None
    """One threshold for all labels, or thresholds by label; labels that are not named keep their own. null:
    those of the run. A label is predicted if its probability is greater than its threshold."""


class Word(BaseModel):
    """A word of a text and how much it spoke for each label."""

    word: str
    start: int
    """Position of its first character in the text."""
    end: int
    """Position after its last character."""
    scores: dict[str, float]
    """Share in the logit of each label; negative: it spoke against the label."""


class Labelled(BaseModel):
    """The prediction for one text."""

    labels: list[str]
    """The predicted labels; there may be none."""
    probabilities: dict[str, float]
    """Of every label."""
    words: list[Word] | None
    """Only with explain=true."""


class Answer(BaseModel):
    """Predictions in the order of the texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "predictions": [
                        {"labels": ["joy"], "probabilities": {"joy": 0.93, "sadness": 0.02}, "words": None}
                    ],
                    "model": "bundled classifier",
                }
            ]
        }
    )

    predictions: list[Labelled]
    model: str


class Refusal(BaseModel):
    """Why a request was not answered."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"error": "texts holds 300 texts; this server takes at most 256.", "id": "5f0c"}]
        }
    )

    error: str
    """One sentence."""
    id: str
    """Of the request, as in the log and in the header X-Request-ID."""


class Health(BaseModel):
    """Whether requests are answered."""

    status: str
    """ready, loading or stopping."""


class Info(BaseModel):
    """What answers here."""

    model: str
    labels: list[str]
    protocol: str
    """Name of the thresholds that decide."""
    thresholds: dict[str, dict[str, float]]
    """Thresholds by label, for every protocol."""
    calibrated: bool
    max_tokens: int | None
    """Longer texts are truncated; null: they are not."""
    explains: bool
    """Whether `explain` can be asked."""
    limits: dict[str, int]
    card: str | None
    """The model card, in Markdown."""
    versions: dict[str, str]


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The entries of OpenAPI for requests that are refused with these codes."""
    return {code: {"model": Refusal, "description": _REASONS[code]} for code in codes}


_REASONS = {
    400: "The body is no JSON.",
    401: "The token is missing or wrong.",
    403: "A page of another address asks.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    422: "The request is not as described, or its texts are too many or too long.",
    500: "An error of the server; its log has more under the id.",
    503: "Too many requests wait, or the server stops or loads; ask again later.",
    504: "The answer was not ready in time.",
}
