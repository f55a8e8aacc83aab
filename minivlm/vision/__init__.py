"""Vision: how an image becomes features."""
