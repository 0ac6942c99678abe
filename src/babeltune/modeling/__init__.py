"""The base model, what is attached to it, and its loss."""
