"""The adapter of NiceGUI."""

from tide_integrations.nicegui import *  # noqa: F403 - that is what it is for
