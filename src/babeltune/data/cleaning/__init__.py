"""Cleaning pipelines: each step keeps a conversation, changes it, or drops it with a reason, and everything is counted."""
