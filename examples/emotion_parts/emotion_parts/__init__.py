"""Options for emotion_lightning."""
