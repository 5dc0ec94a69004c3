from pathlib import Path

import pytest
from helpers.tables import data_settings

from emotion_lightning.data import sources
from emotion_lightning.data.rows import WHOLE
from emotion_lightning.errors import UserError

TALKS = "Hi there . __eou__ Oh no ! __eou__\nWe won ! __eou__ Really ? __eou__ Sure . __eou__\n"
EMOTIONS = "0 5 \n4 6 0 \n"


def dialogues(folder: Path, part: str, talks: str = TALKS, emotions: str = EMOTIONS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / ("dialogues_emotion.txt" if part == "text" else f"dialogues_emotion_{part}.txt")).write_text(emotions)
    path = folder / f"dialogues_{part}.txt"
    path.write_text(talks)
    return path


@pytest.mark.parametrize("part", ["text", "train"])
def test_an_utterance_is_a_row(tmp_path: Path, part: str) -> None:
    found = sources.read_corpus(data_settings(path=dialogues(tmp_path, part)))
    assert found.splits[WHOLE].texts == ["Hi there .", "Oh no !", "We won !", "Really ?", "Sure ."]
    assert found.labels == ["happiness", "no emotion", "sadness", "surprise"]
    targets = found.splits[WHOLE].targets
    assert targets is not None and targets.argmax(axis=1).tolist() == [1, 2, 0, 3, 1]
    assert found.decisions.aside == ["dialogue_id", "turn"]


def test_a_folder_of_dailydialog_is_read_without_its_topics_and_acts(tmp_path: Path) -> None:
    dialogues(tmp_path / "all", "text")
    (tmp_path / "all" / "dialogues_act.txt").write_text("2 1 \n2 1 1 \n")
    (tmp_path / "all" / "dialogues_topic.txt").write_text("1\n2\n")
    (tmp_path / "all" / "readme.txt").write_text("A dataset.")
    assert len(sources.read_corpus(data_settings(path=tmp_path / "all")).splits[WHOLE]) == 5


@pytest.mark.parametrize(
    ("talks", "emotions", "message"),
    [
        (TALKS, "0 \n4 6 0 \n", r"line 1 has 2 utterances, but 1 emotions in dialogues_emotion\.txt"),
        (TALKS, "0 5 \n", "differ in their number of lines; line 2 has no partner"),
        (TALKS, "0 9 \n4 6 0 \n", r"dialogues_emotion\.txt: line 1 has the emotion '9', where 0 to 6 are due"),
    ],
)
def test_files_that_do_not_belong_together_are_named(tmp_path: Path, talks: str, emotions: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read_corpus(data_settings(path=dialogues(tmp_path, "text", talks, emotions)))


@pytest.mark.parametrize("name", ["dialogues_text.txt", "talks.txt"])
def test_dialogues_without_their_emotions_are_told_what_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TALKS)
    with pytest.raises(UserError, match=r"the file of their emotions is missing beside it: dialogues_emotion"):
        sources.read_corpus(data_settings(path=tmp_path / name))
