"""The adapter of Streamlit."""

from tide_integrations.streamlit import *  # noqa: F403 - that is what it is for
