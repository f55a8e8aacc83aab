"""Data: scenes whose truth is known, questions on them, real emoji, and a user's own pictures."""
