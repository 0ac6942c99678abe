"""Judges: what they are asked, how their words are read, and what is made of them."""
