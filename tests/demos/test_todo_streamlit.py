"""The Streamlit demo, its script without a browser."""

import pytest

pytest.importorskip("streamlit", reason="Streamlit is not installed")

import streamlit as st
from streamlit.testing.v1 import AppTest

from demos import todo_streamlit


def page(path):
    from demos import todo_streamlit

    todo_streamlit.page(path)


@pytest.fixture
def app(tmp_path):
    path = str(tmp_path / "app.db")
    yield AppTest.from_function(page, args=(path,), default_timeout=30).run()
    todo_streamlit.open_store(path)[0].close()
    st.cache_resource.clear()


def texts(app):
    return [one.value for one in app.text_input if one.key != "new"]


def test_todos_are_added_done_edited_and_cleared(app):
    assert [info.value for info in app.info] == ["Nothing to do yet."]
    app.text_input(key="new").set_value(" buy  bread ").run()
    app.text_input(key="new").set_value("tea").run()
    assert texts(app) == ["buy bread", "tea"]
    app.checkbox[0].check().run()
    assert [box.value for box in app.checkbox] == [True, False]
    app.text_input[2].set_value("green tea").run()
    assert texts(app) == ["buy bread", "green tea"]
    next(one for one in app.button if one.label == "Clear what is done").click().run()
    assert texts(app) == ["green tea"]
    assert not app.exception
