"""Connectors: how N features become a budget of K visual tokens, in the width of the decoder."""
