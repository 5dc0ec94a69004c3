"""Train the bundled tokenizer on the sample's training texts and save it here."""

from pathlib import Path

from emotion_lightning.data import files, official
from emotion_lightning.tiny import train_tokenizer

train_tokenizer(str(record["text"]) for _, record in files.records(official.SAMPLE / "train.csv")).save_pretrained(
    Path(__file__).parent
)
