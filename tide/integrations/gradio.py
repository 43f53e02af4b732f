"""The adapter of Gradio."""

from tide_integrations.gradio import *  # noqa: F403 - that is what it is for
