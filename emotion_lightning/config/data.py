"""Settings of the `data` group, and of the input file of `predict`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from emotion_lightning.config.bounds import Bounds


@dataclass
class Data:
    """The `data` group: where texts and labels come from."""


class CleaningStep(StrEnum):
    """A step that cleans a text before it is tokenized."""

    html = "html"
    newlines = "newlines"
    users = "users"
    urls = "urls"
    emojis = "emojis"


class LongTexts(StrEnum):
    """What happens to a text that is longer than data.max_tokens."""

    cut_end = "cut_end"
    cut_start = "cut_start"
    middle = "middle"
    windows = "windows"


class JoinWindows(StrEnum):
    """How the logits of a text's pieces become those of the text."""

    maximum = "maximum"
    mean = "mean"


class EmptyTexts(StrEnum):
    """How rows without a text are handled."""

    refuse = "refuse"
    keep = "keep"
    drop = "drop"


class MissingLabels(StrEnum):
    """How an empty cell of a label column is read."""

    refuse = "refuse"
    zero = "zero"
    mask = "mask"


class Targets(StrEnum):
    """What the cells of label columns say of a label."""

    hard = "hard"
    shares = "shares"


class Aggregate(StrEnum):
    """How the rows of several annotators become the labels of their text."""

    majority = "majority"
    share = "share"
    any = "any"
    at_least_2 = "at_least_2"


class Header(StrEnum):
    """Which line of a table names its columns."""

    first = "first"
    none = "none"


PLACES = ("{text}", "{labels}")
"""The places in a template: of the text, and of the names of the labels."""
CHAT = "chat"
"""The template that means the tokenizer's own."""


@dataclass
class LabelNames(Data):
    """Names of labels: given others, united, left out."""

    rename: dict[str, str]
    """New names of labels, as in {happiness: joy}, whether labels are columns, lists or ids. Each new name belongs to
    one label; merge makes one label of several."""
    merge: dict[str, list[str]]
    """Labels made of others, as in {joy: [happiness, love]}: a text has the label joy if it has any of those in the
    list, which are labels no longer. Names after rename count, and a label may go into several. The options of mapping
    are such lists. evaluate does the same with the labels of the run."""
    drop_labels: list[str]
    """Labels to leave out, after rename and merge. Their texts stay, without the label."""


@dataclass
class Batches(LabelNames):
    """Settings that all data sources have."""

    max_tokens: Annotated[int | str, Bounds(at_least=4)]
    """Maximum tokens per text, including special tokens and those of the template; `long_texts` says what happens to
    longer texts. Emotion texts rarely need more than 64. auto: the smallest number that is enough for 99 % of the texts
    of train, 512 at most and no more than the network has positions for; it is found once, and stored."""
    long_texts: LongTexts
    """What happens to longer texts, stored with the model and used in training and prediction: cut_end keeps their
    start, cut_start their end, middle their first and last halves (Sun et al., 2019). windows reads them whole, in
    pieces of max_tokens that overlap, and joins the logits of the pieces; a text of n pieces takes n times as long."""
    window_overlap: Annotated[int | None, Bounds(at_least=0)]
    """With long_texts=windows: minimum number of tokens that two neighbouring pieces share. null: a quarter of the
    tokens that a piece has for the text."""
    max_windows: Annotated[int, Bounds(at_least=2, at_most=1000)]
    """With long_texts=windows: maximum number of pieces of a text, because a text needs the memory of all its pieces at
    once in training. The rest of a longer text is cut off."""
    join_windows: JoinWindows
    """With long_texts=windows: the logit of a label is the maximum of those of the pieces (an emotion anywhere in the
    text counts) or their mean."""
    template: str | None
    """What stands around every text, stored with the model and used in training and prediction: null (nothing), a text
    with {text} and, if wanted, {labels} (the names of the labels, joined by commas), or chat, the chat template of the
    model's tokenizer around data.question. Only the text is truncated. With model.pooling=last the head reads the last
    token of the template."""
    question: str
    """What data.template=chat asks the model, with {text} and, if wanted, {labels}. Other templates do not use it."""
    batch_size: Annotated[int, Bounds(at_least=1)]
    """Texts per batch, on each device."""
    batch_tokens: Annotated[int | None, Bounds(at_least=4)]
    """Maximum tokens per batch and device, including padding. Replaces batch_size, so batches of short texts hold more
    texts; each text still has the same weight. null: batch_size texts per batch."""
    sort_window: Annotated[int, Bounds(at_least=1)]
    """Number of shuffled training batches whose texts are sorted by length together, for less padding. 1 does not sort;
    with a larger value, texts of the same length are more often in the same batch."""
    max_rows: Annotated[int | None, Bounds(at_least=1)]
    """Use only the first rows of each split, for a quick test; null uses all."""
    workers: Annotated[int, Bounds(at_least=0)]
    """Processes that prepare batches. 0 is fastest for short texts, because their tokens are in memory already."""
    clean: list[CleaningStep]
    """Cleaning steps for tweets, stored with the model and used in training and prediction: html (&amp; becomes &),
    newlines (a literal \\n becomes a space), users (@name becomes @user), urls (http… becomes http), emojis (each
    becomes its English name, because vocabularies such as BERT's contain no emojis)."""
    folds: Annotated[int | None, Bounds(at_least=2)]
    """Cross-validation: number of folds, stratified by labels, that train and validation are split into together; null
    turns it off."""
    fold: Annotated[int | None, Bounds(at_least=1)]
    """The fold used as validation split, counted from 1; the other folds are train. -m sweep=folds runs all folds."""
    drop_leaks: bool
    """Remove texts from train that are also in validation or test. Their number is logged in any case."""
    near_duplicates: Annotated[float | None, Bounds(at_least=0.6, at_most=1)]
    """From which Jaccard similarity of their groups of three characters on two texts count as nearly the same, such as
    0.8. Those of train that are nearly the same as one of validation or test are counted, and removed with drop_leaks.
    null: only equal texts count. Needs the extra `near`."""


@dataclass
class Sample(Batches):
    """The bundled texts with the 11 labels of SemEval-2018."""


class Language(StrEnum):
    """A language of SemEval-2018 E-c."""

    En = "En"
    Ar = "Ar"
    Es = "Es"


@dataclass
class SemEval2018(Batches):
    """SemEval-2018 Task 1 E-c, the official files."""

    dir: str | None
    """Folder with the official files; null downloads the dataset from the Hugging Face hub."""
    language: Language
    """English, Arabic or Spanish, as in the official file names."""


@dataclass
class GoEmotions(Batches):
    """GoEmotions, the official files."""

    dir: str | None
    """Folder with train.tsv, dev.tsv, test.tsv and labels.txt (or emotions.txt); null downloads the dataset from the
    Hugging Face hub."""


class Neutral(StrEnum):
    """What becomes of the neutral lines of XED."""

    unlabelled = "unlabelled"
    label = "label"
    left_out = "left_out"


class Lacking(StrEnum):
    """What becomes of labels that only some languages have."""

    drop = "drop"
    mask = "mask"


@dataclass
class Multilingual(Batches):
    """Settings of official datasets in several languages, whose rows are read as one set."""

    dir: str | None
    """Folder with the official files."""
    languages: list[str] | None
    """Languages to train on, by the names of their files, such as [eng,deu]; null: all that the folder has. With
    max_rows, each has about the same number of rows."""
    test_languages: list[str] | None
    """Languages of the test split, if they are others than those to train on; null: the same."""
    groups: list[str] | None
    """Columns for whose values scores are also told one by one: language, and in XED source (annotated, neutral,
    projected). null: none."""


@dataclass
class XED(Multilingual):
    """XED: lines of films with Plutchik's eight emotions, its official files."""

    neutral: Neutral
    """Neutral lines, which en and fi have in files of their own: unlabelled gives them none of the eight emotions,
    label gives them a ninth label, neutral, left_out does not read them."""
    validation_share: Annotated[float, Bounds(above=0, below=1)]
    """Fraction of the rows for the validation split: XED has no official splits."""
    test_share: Annotated[float, Bounds(at_least=0, below=1)]
    """Fraction of the rows for the test split, without test_languages."""
    split_seed: Annotated[int, Bounds(at_least=0)]
    """Seed of the splits. It is separate from `seed`, so that runs with different seeds are scored on the same rows."""
    splits: str | None
    """splits.csv of an earlier run, to use the same splits; null creates new splits."""


class Track(StrEnum):
    """A track of SemEval-2025 Task 11 whose labels are learned."""

    a = "a"
    b = "b"


@dataclass
class Brighter(Multilingual):
    """BRIGHTER: SemEval-2025 Task 11 in 28 languages, the official files."""

    track: Track
    """a: 28 languages with labels of 0 and 1. b: 11 languages with intensities from 0 to 3, which are learned as shares
    of 3; a label is present from 1 on."""
    missing: Lacking
    """Labels that some of the languages lack, such as disgust in English: drop leaves them out in all languages, mask
    keeps them and leaves them open in the texts of these languages, so that they count in no loss or score there."""
    individual: bool
    """Take the labels from what each annotator said (individual_labels/) whether they saw an emotion, however weakly.
    Texts without annotations are left out."""
    aggregate: Aggregate
    """With individual: how the annotators of a text make its labels, as for files; share learns the share of them."""
    harden: bool
    """Learn 0 and 1 where there are shares or intensities, and keep these for scores: from a share of a half on with
    aggregate=share, from 1 on with track=b."""

    @property
    def soft(self) -> bool:
        """Whether shares are known, which are learned unless `harden` is set."""
        return self.track is Track.b or (self.individual and self.aggregate is Aggregate.share)

    @property
    def scale(self) -> float | None:
        """Largest intensity; None if there are none."""
        return 3.0 if self.track is Track.b else None

    @property
    def present_level(self) -> float:
        """The intensity from which on a label is present."""
        return 1.0


@dataclass
class Table(Batches):
    """Settings that files and hub datasets have: the roles of columns, and the splits."""

    text: str | None
    """Text column, or a path into objects such as data.text; null looks for usual names."""
    labels: list[str] | None
    """Names of the 0/1 columns. With `labels_column`: the label names that its ids or names refer to."""
    labels_column: str | None
    """Column with all labels of a row: a list, or a string of labels with `separator` between them; or a path into
    objects and lists, such as annotations.result.value.choices."""
    separator: str | None
    """Separator of the labels in a `labels_column` string; null uses the first of | ; , that occurs in it."""
    first_id: Annotated[int | None, Bounds(at_least=0)]
    """Number of the first label of `labels`, where `labels_column` holds ids: 0 or 1. null: 0, if the ids of the data
    show that they count from 0; otherwise the data is refused."""
    true_values: list[str] | None
    """Words in 0/1 columns that mean 1, such as [yes] or [x], in upper or lower case; null: 1 and true only."""
    false_values: list[str] | None
    """Words in 0/1 columns that mean 0, such as [no]; null: 0 and false only."""
    missing: MissingLabels
    """Empty cells in label columns: refuse raises an error that lists them, zero reads each as 0. mask leaves the label
    of that text open: it counts in no loss, weight, threshold or score. With mask, a file may also lack label columns
    that others have."""
    targets: Targets
    """What the cells of label columns are: hard (0 or 1) or shares, the part of the annotators who gave the label, as
    0.6, 60% or a count with `annotators_column`. Shares are learned as they are; thresholds, F1 and all other scores of
    decisions need 0 and 1, which `present_from` makes of them. `scale` and aggregate=share give shares too."""
    annotators_column: str | None
    """With targets=shares: column with the number of annotators who looked at the row; the columns in `labels` then
    hold how many of them gave each label. null: cells are shares or percentages."""
    scale: Annotated[float | None, Bounds(above=0)]
    """Largest intensity, for label columns that hold intensities from 0 to it, such as 3; they are learned as shares of
    it. null: cells are no intensities."""
    present_from: Annotated[float | None, Bounds(above=0)]
    """Smallest number in a label column that means that the label is present, for intensities, counts and shares, such
    as 1 for 0 to 3, or 0.5 for shares of annotators. With targets=shares and with `scale`, shares are learned, and this
    makes the 0 and 1 of decisions. null: 1 with `scale`, 0.5 with targets=shares; else only 0 and 1 are allowed."""
    harden: bool
    """Learn the 0 and 1 that `present_from` makes of shares, and keep the shares for scores. To tell what learning
    shares brings, compare a run with one that differs in this."""
    annotator: str | None
    """Column that says who labelled a row, in files with a row for each annotator of a text. The rows are joined as
    `aggregate` says, by share if that is null. null: the column is known by a usual name."""
    aggregate: Aggregate | None
    """How rows of several annotators, which have the same id (or the same text, if there are no ids), become one row:
    share learns the part of them who gave a label, which is present from a half of them on; majority keeps a label that
    more than half of them gave, any one that somebody gave, at_least_2 one that two gave. null: share with `annotator`;
    otherwise such rows are refused."""
    context: Annotated[int | None, Bounds(at_least=1)]
    """Maximum number of turns of the conversation before a text that the network reads in front of it, stored with the
    model and read in prediction too. null: texts stand alone. If tokens are too many, the oldest turns are cut."""
    conversation: str | None
    """With context: column that says which conversation a row belongs to. Splits that are made by this program never
    cut a conversation."""
    turn: str | None
    """With context: column that orders the turns of a conversation, numbers or times (ISO 8601). null: the order of the
    rows."""
    context_columns: list[str] | None
    """In place of context: columns with the turns before the text, oldest first, as in [turn1,turn2] with text=turn3.
    Empty cells are no turn."""
    context_separator: str | None
    """What stands between turns, for example a line break. null: the separator token of the tokenizer, or a line break
    if it has none."""
    id_column: str | None
    """Column that identifies a row in prediction files. null looks for usual names; `row` numbers the rows."""
    empty_texts: EmptyTexts
    """Rows without a text: refuse raises an error that lists them, keep uses them, drop removes them."""
    validation_share: Annotated[float, Bounds(above=0, below=1)]
    """Fraction of the rows for the validation split, if the data has no such split."""
    split_seed: Annotated[int, Bounds(at_least=0)]
    """Seed of the splits. It is separate from `seed`, so that runs with different seeds are scored on the same rows."""
    splits: str | None
    """splits.csv of an earlier run, to use the same splits; null creates new splits."""
    group_column: str | None
    """Column whose rows with the same value stay in one split, such as author or thread, where this program makes the
    splits or folds. Splits that the data brings are not changed; how many values they cut is told. null: none."""
    groups: list[str] | None
    """Columns such as [language,source] for whose values scores are also told one by one. They are not learned. null:
    none."""

    @property
    def joining(self) -> Aggregate | None:
        """How rows of several annotators are joined; None if they are not."""
        return Aggregate.share if self.aggregate is None and self.annotator is not None else self.aggregate

    @property
    def soft(self) -> bool:
        """Whether shares are learned instead of 0 and 1."""
        return self.targets is Targets.shares or self.scale is not None or self.joining is Aggregate.share

    @property
    def present_level(self) -> float:
        """The intensity from which on a label is present, where there are intensities."""
        return self.present_from or min(1.0, self.scale or 1.0)

    @property
    def present(self) -> float:
        """The share from which on a label is present, where shares are learned."""
        if self.scale is not None:
            return self.present_level / self.scale
        # With aggregate=share alone, present_from is about the cells of annotators.
        return self.present_from or 0.5 if self.targets is Targets.shares else 0.5


@dataclass
class DividedTable(Table):
    """A table that may come as one, which is then divided into splits."""

    test_share: Annotated[float, Bounds(at_least=0, below=1)]
    """Fraction of the rows for the test split, if they come without splits."""
    split_column: str | None
    """Column that says of each row whether it belongs to train, validation or test, if the rows come as one table. null
    uses one with a usual name (split, fold, set, partition …) and the usual values; none uses none."""


@dataclass
class File(DividedTable):
    """Your own files: csv, tsv, jsonl, json, parquet, arrow, xlsx, sqlite, zip, or a folder of such files.

    Exports of annotation tools are recognised.
    """

    path: str | None
    """A single file; a list [a.csv,b.csv], a folder or a pattern data/*.csv of files that are read as one, unless the
    names of the files in a folder say their splits (train, dev, test). A column of splits divides it (`split_column`),
    or it is split automatically (stratified by labels; equal texts stay in one split)."""
    train: str | None
    """Training file, or a list of files, if you have your own splits."""
    validation: str | None
    """Validation file, or a list of files; null uses a `validation_share` of the training rows."""
    test: str | None
    """Test file, or a list of files; null: no test split."""
    encoding: str | None
    """Encoding of csv, tsv, jsonl, json and txt files (cp1252, utf-16 …); null is UTF-8."""
    header: Header | None
    """Line of csv, tsv and txt files that names the columns: first, or none for a file that starts with data. null: the
    first line, which is refused if it looks like data."""
    columns: list[str] | None
    """Names of the columns, in order, with header=none; null calls them column_1, column_2 and so on."""
    table: str | None
    """Sheet of an Excel file, table of an SQLite database, or file in a zip file; null: the only one with rows."""


@dataclass
class Hub(Table):
    """A dataset on the Hugging Face hub, or a folder that `datasets` can load."""

    path: str
    """Hub id or folder."""
    name: str | None
    """Configuration of the dataset, if it has several."""
    revision: str | None
    """Branch, tag or commit; null is the newest."""
    train: str
    """Name of the training split."""
    validation: str | None
    """Name of the validation split; null uses a `validation_share` of the training rows."""
    test: str | None
    """Name of the test split; null: no test split."""


@dataclass
class SameData(LabelNames):
    """The dataset of the run, for `evaluate` only."""

    groups: list[str] | None
    """Columns for whose values scores are also told one by one; null: those of the run."""


@dataclass
class ComparedLabels:
    """How `compare` unites labels, so that runs with different ones can be compared."""

    rename: dict[str, str]
    """New names of the runs' labels, as in {happiness: joy}."""
    merge: dict[str, list[str]]
    """Labels made of others, as in {joy: [happiness, love]}, in gold and prediction: a label counts where any of those
    in the list does."""
    drop_labels: list[str]
    """Labels to leave out of the comparison."""


@dataclass
class InputColumns:
    """How `predict` reads its input file."""

    text: str | None
    """Text column, or a path into objects such as data.text; null uses the column of the run, or looks for usual
    names."""
    id_column: str | None
    """Column that identifies a row. null uses the column of the run, or looks for usual names; `row` numbers the
    rows."""
    conversation: str | None
    """For a run with data.context: column of the conversations; null uses the column of the run."""
    turn: str | None
    """For a run with data.context: column that orders the turns; null uses the column of the run."""
    context_columns: list[str] | None
    """For a run with data.context_columns: columns of the turns before the text; null uses the columns of the run."""
    encoding: str | None
    """Encoding of csv, tsv, jsonl, json and txt files (cp1252, utf-16 …); null is UTF-8."""
    header: Header | None
    """Line of csv, tsv and txt files that names the columns: first, or none for a file that starts with data. null: the
    first line, which is refused if it looks like data."""
    columns: list[str] | None
    """Names of the columns, in order, with header=none; null calls them column_1, column_2 and so on."""
    table: str | None
    """Sheet of an Excel file, table of an SQLite database, or file in a zip file; null: the only one with rows."""
    empty_texts: EmptyTexts
    """Rows without a text: refuse raises an error that lists them, keep predicts them like any other row."""
    batch_size: Annotated[int, Bounds(at_least=1)]
    """Texts per batch."""
    batch_tokens: Annotated[int | None, Bounds(at_least=1)]
    """Maximum tokens per batch, including padding; replaces batch_size. null: batch_size texts per batch."""
