"""Read the dataset of a finished run again, with the same splits."""

import logging
from collections.abc import Iterable
from pathlib import Path

from emotion_lightning import config
from emotion_lightning.config import own_parts, redaction, schema, stored_settings
from emotion_lightning.data import sources, splitting
from emotion_lightning.data.rows import WHOLE, Corpus, Rows
from emotion_lightning.errors import UserError, counted
from emotion_lightning.models.metadata import METADATA, Metadata
from emotion_lightning.runs import manifest, run_folder

log = logging.getLogger(__name__)


def data_settings(metadata: Metadata, folder: Path) -> config.Batches:
    """Return the data settings that a run was trained with; the splits come from the run folder.

    Args:
        metadata: the run's metadata.
        folder: the run folder.

    Raises:
        UserError: the metadata is damaged or of another version, or belongs to an export, which stores no paths of the
            machine that trained it.
    """
    stored = stored_settings.with_added(metadata.data)
    values = {name: value for name, value in stored.items() if f"data.{name}" not in stored_settings.REMOVED}
    if "part" in values and f"data/{values['option']}" not in config.SCHEMAS:
        raise own_parts.lacking({f"data={values['option']}": values["part"]}, "The run")
    if "part" in values and (hidden := [name for name, value in values.items() if redaction.HIDDEN in str(value)]):
        raise UserError(own_parts.SECRET.format(file="The run", name=f"data.{hidden[0]}"))
    node = config.SCHEMAS[f"data/{values.pop('option')}"]
    places = [values.get(name) for name in ("path", "train", "dir")]
    if metadata.format and issubclass(node, config.File) and not any(places):
        raise UserError("An export does not know where the data of its run lies; name data with data=.")
    if not metadata.format and issubclass(node, config.Table | config.XED) and (folder / run_folder.SPLITS).is_file():
        manifest.check_run_hashes(folder, run_folder.SPLITS)
        values["splits"] = str(folder / run_folder.SPLITS)
    try:
        settings: config.Batches = schema.from_plain(node, values)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"The data settings of {METADATA} are damaged or of another version ({error}).") from error
    return settings


def tell_learned(run: Path, rows: Rows) -> None:
    """Warn if other data than the run's own has texts that the run learned from; runs with official splits cannot tell.

    Args:
        run: the run folder.
        rows: the rows that are scored.
    """
    file = run / run_folder.SPLITS
    if file.is_file() and (count := splitting.learned_from(file, rows.texts)):
        log.warning(
            "%s of %s %s learned from by the run %s (%s): their scores do not say how well new texts are labelled.",
            f"{count:,}", counted(len(rows), "text"), "was" if count == 1 else "were", run, run_folder.SPLITS,
        )  # fmt: skip


def read_split(
    settings: config.Batches, split: str, *, own: bool, labels: Iterable[str] = (), usual_text: str | None = None
) -> tuple[Corpus, str]:
    """Return a corpus and the name of the requested split in it.

    Args:
        settings: of the data.
        split: train, validation or test.
        own: whether the data is the run's own. Other data is used as a whole if it has no splits.
        labels: labels of the run, and those that a mapping names. A column of zeros and ones with such a name is a
            label, even if it is constant.
        usual_text: name of the column of texts that the run learned from.

    Raises:
        UserError: the data has no such split.
    """
    corpus = sources.read_corpus(settings, known=set(labels), usual_text=usual_text)
    if own:
        corpus = sources.split_corpus(corpus, settings)
    elif WHOLE in corpus.splits:
        return corpus, WHOLE
    if split not in corpus.splits:
        raise UserError(f"The data has no {split} split; it has {', '.join(corpus.splits)}. Choose one with split=…")
    return corpus, split
