"""Settings of the `data` group, and of what is read of a file."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from emotion_lightning.config.bounds import Bounds


@dataclass
class Data:
    """The `data` group: where texts and labels come from."""


class CleaningStep(StrEnum):
    """What may be cleaned out of a text before it is tokenized."""

    html = "html"
    newlines = "newlines"
    users = "users"
    urls = "urls"
    emojis = "emojis"


class EmptyTexts(StrEnum):
    """What becomes of rows without a text."""

    refuse = "refuse"
    keep = "keep"
    drop = "drop"


@dataclass
class Batches(Data):
    """What every source shares."""

    max_tokens: Annotated[int, Bounds(at_least=4)]
    """Longer texts are cut to this many tokens, special ones included. Emotion texts rarely need more than 64."""
    batch_size: Annotated[int, Bounds(at_least=1)]
    """Texts in a batch, on each device."""
    batch_tokens: Annotated[int | None, Bounds(at_least=4)]
    """Tokens in a batch at most, padding counted, on each device, instead of batch_size texts: batches of short texts
    then hold many, and each text still counts alike. null: batch_size texts each."""
    sort_window: Annotated[int, Bounds(at_least=1)]
    """Batches of shuffled training texts that are sorted by length together, to pad less: 1 sorts none; with more,
    texts of one length meet more often."""
    max_rows: Annotated[int | None, Bounds(at_least=1)]
    """Keep only the first rows of each split; null keeps all. For a quick look, not for results."""
    workers: Annotated[int, Bounds(at_least=0)]
    """Processes that prepare batches. 0 is fastest for short texts: tokens are in memory already."""
    clean: list[CleaningStep]
    """What is cleaned out of texts, at training and, as it is stored with the model, at prediction: html (&amp; becomes
    &), newlines (a literal \\n becomes a space), users (@name becomes @user), urls (http… becomes http), emojis (each
    becomes its English name: vocabularies such as BERT's know none of them). For tweets."""
    folds: Annotated[int | None, Bounds(at_least=2)]
    """Cross-validation: train and validation together are cut into so many parts, stratified by labels; null: no."""
    fold: Annotated[int | None, Bounds(at_least=1)]
    """Which of the parts is the validation split, counted from 1; the others are train. -m sweep=folds runs all."""
    drop_leaks: bool
    """Leave out of train the texts that stand in validation or test too; their number is told in any case."""


@dataclass
class Sample(Batches):
    """The bundled texts with the 11 labels of SemEval-2018."""


class Language(StrEnum):
    """Languages of SemEval-2018 E-c."""

    En = "En"
    Ar = "Ar"
    Es = "Es"


@dataclass
class SemEval2018(Batches):
    """SemEval-2018 Task 1 E-c, the official files."""

    dir: str | None
    """Folder of the official files; null reads the Hugging Face hub."""
    language: Language
    """English, Arabic or Spanish, as in the official file names."""


@dataclass
class GoEmotions(Batches):
    """GoEmotions, the official files."""

    dir: str | None
    """Folder with train.tsv, dev.tsv, test.tsv and labels.txt (or emotions.txt); null reads the Hugging Face hub."""


@dataclass
class Table(Batches):
    """What files and hub data sets share: which column is what."""

    text: str | None
    """The text column; null looks for its usual names."""
    labels: list[str] | None
    """Names of the 0/1 columns; or, beside `labels_column`, the names that its ids or names refer to."""
    labels_column: str | None
    """One column that holds all labels of a row: a list, or a string with `separator`."""
    separator: str | None
    """What stands between labels in a `labels_column` string; null takes the first of | ; , that occurs in it."""
    id_column: str | None
    """The column that identifies a row in prediction files; null looks for its usual names; row counts them."""
    empty_texts: EmptyTexts
    """What becomes of rows without a text: refuse names them, keep takes them, drop leaves them out."""
    validation_share: Annotated[float, Bounds(above=0, below=1)]
    """Share of the rows that becomes the validation split, where there is none."""
    split_seed: Annotated[int, Bounds(at_least=0)]
    """Seed of that split. Apart from `seed`, so that runs with several seeds are scored on the same rows."""
    splits: str | None
    """The splits.csv of an earlier run: each row goes where it went then; null splits anew."""


@dataclass
class File(Table):
    """Files of your own: csv, tsv, jsonl, json, parquet, arrow, or a folder that `datasets` saved."""

    path: str | None
    """One file, split for you (stratified by labels)."""
    train: str | None
    """The training file, where you have splits of your own."""
    validation: str | None
    """The validation file; null takes `validation_share` of the training rows."""
    test: str | None
    """The test file; null: no test."""
    test_share: Annotated[float, Bounds(at_least=0, below=1)]
    """Share of `path` that becomes the test split."""
    encoding: str | None
    """Encoding of csv, tsv, jsonl, json and txt files (cp1252, utf-16 …); null is UTF-8."""


@dataclass
class Hub(Table):
    """Any data set of the Hugging Face hub, or a folder that `datasets` can load."""

    path: str
    """Hub id or folder."""
    name: str | None
    """Configuration of the data set, where it has several."""
    revision: str | None
    """Branch, tag or commit; null is the newest."""
    train: str
    """Name of the training split."""
    validation: str | None
    """Name of the validation split; null takes `validation_share` of the training rows."""
    test: str | None
    """Name of the test split; null: no test."""


@dataclass
class SameData(Data):
    """Evaluate only: the data that the run was trained on."""


@dataclass
class Columns:
    """Predict only: how the input file is read."""

    text: str | None
    """The text column; null takes the one of the run, else looks for the usual names."""
    id_column: str | None
    """The column that identifies a row; null takes the one of the run, else looks for the usual names; row counts
    them."""
    encoding: str | None
    """Encoding of csv, tsv, jsonl, json and txt files (cp1252, utf-16 …); null is UTF-8."""
    empty_texts: EmptyTexts
    """What becomes of rows without a text: refuse names them, keep gives them a prediction like any other."""
    batch_size: Annotated[int, Bounds(at_least=1)]
    """Texts in a batch."""
    batch_tokens: Annotated[int | None, Bounds(at_least=1)]
    """Tokens in a batch at most, padding counted, instead of batch_size texts; null: batch_size texts each."""
