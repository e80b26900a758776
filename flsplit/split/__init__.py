"""The split: models cut in two, the messages between them, and the two halves of a training step."""
