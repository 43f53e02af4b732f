"""The same todo app in each UI framework: `python -m demos <framework>`."""
