"""Fusion: how visual tokens meet the language model."""
