"""Users of `serving.py`, for locust: each asks with a text of the sample, or several, as soon as it is answered."""

import csv
import os
import random
from pathlib import Path

from locust import FastHttpUser, task

_FILE = Path(__file__).resolve().parent.parent / "emotion_lightning" / "data" / "sample" / "train.csv"
with _FILE.open(encoding="utf-8", newline="") as _opened:
    TEXTS = [row["text"] for row in csv.DictReader(_opened)]
SIZE = int(os.environ.get("TEXTS_A_REQUEST", "1"))


class Reader(FastHttpUser):
    """Asks without a pause."""

    connection_timeout = network_timeout = 120.0

    @task
    def ask(self) -> None:
        """Label texts."""
        self.client.post("/predict", json={"texts": random.sample(TEXTS, SIZE)})
