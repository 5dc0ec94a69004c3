from pathlib import Path

import pytest
from helpers.tables import data_settings, text_columns

from emotion_lightning.data import sources, tables
from emotion_lightning.data.formats import files
from emotion_lightning.data.rows import WHOLE
from emotion_lightning.errors import UserError

HEAD = "#FORMAT=WebAnno TSV 3.3\n#T_SP=webanno.custom.Emotion|value\n\n\n"
SENTENCES = (
    "#Text=We won the raffle\n1-1\t0-2\tWe\t_\t\n1-2\t3-6\twon\tjoy[1]|love\t\n1-3\t7-10\tthe\tjoy[1]\t\n\n"
    "#Text=who broke\\nmy \\\\ mug\n2-1\t18-21\twho\tanger\\|rage\t\n\n"
    "#Text=nothing\n3-1\t40-47\tnothing\t*[2]\t\n"
)


@pytest.mark.parametrize("name", ["a.tsv", "a.txt"])
def test_a_sentence_is_a_row_with_the_labels_of_its_spans(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    path.write_text(HEAD + SENTENCES)
    with caplog.at_level("INFO"):
        found = sources.read_corpus(data_settings(path=path))
    assert found.splits[WHOLE].texts == ["We won the raffle", "who broke\nmy \\ mug", "nothing"]
    assert found.labels == ["anger|rage", "joy", "love"]
    targets = found.splits[WHOLE].targets
    assert targets is not None and targets.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert found.decisions.files[0]["tool"] == "INCEpTION" and "is read as INCEpTION exports it" in caplog.text
    assert [text for _, text in tables.read_texts(files.source(path), text_columns())][0] == "We won the raffle"


def test_several_features_need_a_choice_and_relations_are_passed_over(tmp_path: Path) -> None:
    head = (
        "#FORMAT=WebAnno TSV 3.2\n#T_SP=webanno.custom.Emotion|value|strength\n"
        "#T_RL=webanno.custom.Cause|kind|BT_webanno.custom.Emotion\n\n\n"
    )
    path = tmp_path / "a.tsv"
    path.write_text(head + "#Text=so glad\n1-1\t0-2\tso\tjoy\tmuch\t_\t_\t\n1-2\t3-7\tglad\t_\t_\tx\t1-1\t\n")
    with pytest.raises(UserError, match=r"several questions in INCEpTION: Emotion\.value, Emotion\.strength"):
        sources.read_corpus(data_settings(path=path))
    assert sources.read_corpus(data_settings(path=path, labels_column="Emotion.strength")).labels == ["much"]


def test_a_token_without_its_features_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(HEAD + SENTENCES.replace("2-1\t18-21\twho\tanger\\|rage\t", "2-1\t18-21\twho"))
    with pytest.raises(UserError, match=r"row 2: 0 features of a token where 1 are due \(line 11\)"):
        sources.read_corpus(data_settings(path=path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "#FORMAT=WebAnno TSV 3.3\n\n\n#Text=x\n1-1\t0-1\tx\t\n", "has no layer of spans with a feature"),
        ("a.json", '{\n "%TYPES" : { },\n "%FEATURE_STRUCTURES" : [ ]\n}', "export it as WebAnno TSV"),
    ],
)
def test_what_holds_no_labels_is_told_what_to_export(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        sources.read_corpus(data_settings(path=tmp_path / name))
