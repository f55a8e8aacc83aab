"""Contrastive models: two towers, one space, and the losses that pull matching pairs together."""
