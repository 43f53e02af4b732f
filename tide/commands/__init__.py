"""The commands of `tide` for people who are debugging: one module each."""
