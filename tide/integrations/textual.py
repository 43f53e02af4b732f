"""The adapter of Textual."""

from tide_integrations.textual import *  # noqa: F403 - that is what it is for
