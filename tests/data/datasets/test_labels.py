import logging

import numpy as np
import pytest

from fer_lightning.data.datasets.labels import DROPPED, NO_LABEL, label_numbers
from fer_lightning.emotions import BASIC_7, BASIC_8, UnknownEmotion


def numbers(*labels, emotions=None, drop=None):
    found, order = label_numbers(np.array(labels, object), emotions, lambda row: f"row {row}", drop)
    return found.tolist(), order


def test_names_become_numbers_by_any_synonym():
    found, order = numbers("Happy", "", "joy", "anger")
    assert found == [3, NO_LABEL, 3, 0]
    assert order == BASIC_7
    assert numbers("happy", "contempt") == ([3, 7], BASIC_8)


def test_no_labels_are_no_error():
    assert numbers("", "") == ([NO_LABEL, NO_LABEL], BASIC_7)
    assert numbers()[0] == []


# Class numbers


@pytest.mark.parametrize("labels", [("0", "2", ""), ("0.0", "2.0", ""), ("00", "+2.", "")], ids=str)
def test_class_numbers_are_positions_in_the_emotions_given(labels):
    found, order = numbers(*labels, emotions=["sad", "happy", "neutral"])
    assert found == [0, 2, NO_LABEL]
    assert order.emotions == ("sadness", "happiness", "neutral")


def test_class_numbers_follow_a_taxonomy_by_name():
    found, order = numbers("3", "0", emotions="raf_db")
    assert [order.emotions[number] for number in found] == ["happiness", "surprise"]


def test_class_numbers_without_an_order_are_refused_with_the_remedy():
    with pytest.raises(UnknownEmotion, match="row 1: the label 3 is a class number: give `emotions`"):
        numbers("happy", "3")


@pytest.mark.parametrize("label", ["3", "-1", "7.0"])
def test_class_numbers_beyond_the_emotions_are_refused(label):
    with pytest.raises(UnknownEmotion, match=rf"row 1: the label {label} is no class number from 0 to 2"):
        numbers("0", label, emotions=["sad", "happy", "neutral"])


@pytest.mark.parametrize("label", ["2.5", "1e0", "³", "inf"])
def test_other_numbers_are_no_labels(label):
    with pytest.raises(UnknownEmotion, match="is not a known emotion"):
        numbers(label, emotions="basic7")


def test_numbers_that_seem_to_be_counted_from_one_are_told(caplog):
    with caplog.at_level(logging.WARNING):
        numbers("1", "6", emotions="raf_db")
    assert "the smallest is 1: class numbers count from 0" in caplog.text
    caplog.clear()
    numbers("0", "6", emotions="raf_db")
    numbers("happy", emotions="raf_db")
    assert not caplog.records


# Left out on purpose


def test_a_dropped_emotion_is_counted_and_leaves_the_taxonomy(caplog):
    with caplog.at_level(logging.WARNING):
        found, order = numbers("happy", "Contemptuous", "contempt", "", drop=["contempt"])
    assert found == [3, DROPPED, DROPPED, NO_LABEL]
    assert order == BASIC_7
    assert "2 faces of contempt are left out" in caplog.text


def test_the_others_keep_their_order_when_one_in_the_middle_is_dropped():
    found, order = numbers("neutral", "anger", "disgust", "surprise", drop=["disgusted"])
    assert order.emotions == ("anger", "fear", "happiness", "sadness", "surprise", "neutral")
    assert found == [5, 0, DROPPED, 4]
    assert order.name == "basic7-without-disgust"


def test_class_numbers_are_read_before_an_emotion_is_dropped():
    found, order = numbers("0", "1", "2", emotions=["sad", "happy", "neutral"], drop=["happy"])
    assert found == [0, DROPPED, 1]
    assert order.emotions == ("sadness", "neutral")


def test_a_label_that_is_no_emotion_can_be_dropped(caplog):
    with caplog.at_level(logging.WARNING):
        found, order = numbers("happy", "Uncertain", drop=["uncertain"])
    assert found == [3, DROPPED]
    assert order == BASIC_7
    assert "1 faces of uncertain are left out" in caplog.text


def test_a_dropped_emotion_that_no_face_has_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        numbers("happy", drop=["contempt"])
    assert "drop names contempt, which no face is labeled" in caplog.text


def test_a_misspelt_drop_is_refused():
    with pytest.raises(UnknownEmotion, match="drop: 'contmpt' is not a known emotion"):
        numbers("happy", drop=["contmpt"])
