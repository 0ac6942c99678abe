"""Personal data are found, and ordinary numbers are not."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babeltune.data.cleaning.personal import hits, is_cn_id_card, is_vn_id_card, masked, passes_luhn, personal
from babeltune.errors import ConfigError
from babeltune.records import Conversation, Message
from babeltune.steps import PersonalStep

from .dialogues import TEXTS, at, chat, document, only, reason, texts


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "a.b@qq.com"),
        ("email", "Nguyen_Lan+work@mail.hust.edu.vn"),
        ("email", "zhang-san@163.com"),
        ("phone", "13812345678"),
        ("phone", "138-1234-5678"),
        ("phone", "138 1234 5678"),
        ("phone", "+86 13912345678"),
        ("phone", "0086-13812345678"),
        ("phone", "010-82345678"),
        ("phone", "(0755)26543210"),
        ("phone", "（021）62345678"),
        ("phone", "+86 10 8234 5678"),
        ("phone", "0912345678"),
        ("phone", "0912.345.678"),
        ("phone", "091 234 5678"),
        ("phone", "+84 912 345 678"),
        ("phone", "+84912345678"),
        ("phone", "(024) 3825 4567"),
        ("phone", "+44 20 7946 0958"),
        ("phone", "+1 415-555-2671"),
        ("phone", "(415) 555-2671"),
        ("ip", "114.114.115.119"),
        ("ip", "203.162.4.191"),
        ("ip", "2400:3200:baba::1"),
        ("id_card", "11010519491231002X"),
        ("id_card", "11010519491231002x"),
        ("id_card", "079093001234"),
        ("card", "4539578763621486"),
        ("card", "4539 5787 6362 1486"),
        ("card", "3782-822463-10005"),
        ("card", "6222021234567890128"),
    ],
)
@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("电话或邮箱：", "，谢谢。"), ("Liên hệ: ", " nhé."), ("(see ", ")"), ('"', '"')]
)
def test_personal_data_are_found_whatever_stands_around(kind: str, text: str, before: str, after: str) -> None:
    assert masked(f"{before}{text}{after}") == f"{before}<{kind}>{after}"


@pytest.mark.parametrize(
    "text",
    [
        *("2023年1月15日", "1949-10-01", "2020-2021-2022", "10:20:30", "20230101123456789"),
        *("3.1415926535", "2.718281828459045", "0.0912345678", "1,234,567,890", "2^12345678901", "12345678901234567890"),
        *("13800000000", "13812345678年", "13812345678 元", "¥13812345678", "$ 4155552671", "0912345678 đồng", "13812345678.5"),
        *("13812345678 + 1 = 13812345679", "2 + 13812345678", "13812345678901", "a13812345678", "/v/13812345678/x"),
        *("C6H12O6", "CH3(CH2)16COOH", "H2SO4", "120/80 mmHg", "36.5-37.2", "100-200-3000", "1-2-3-4-5-6-7-8-9"),
        *("1.2.3", "v114.114.115.119", "版本 114.114.115.119", "1.2.3.4", "第1.2.3.4节", "囊肿5.64.52.9", "256.300.1.1"),
        *("192.168.1.10", "10.0.113.254", "127.0.0.1", "255.255.255.0", "8.8.8.8", "std::abc::def", "a::b", "2001:db8::1"),
        *("git@github.com:a/b", "icon@2x.png", "react@17.0.2", "@app.route", "a@b.T", "lan@example.com", "x@y", "your@email.com"),
        *("4539578763621487", "1234567890123456", "0000000000000000", "4111 1111 1111 1111", "ISBN 978-7-111-12345-6"),
        *("110105194912310021", "110105194913310025", "001010101010", "012345678901", "999093001234", "1-800-222-1222"),
        *("[1, 2, 3, 4, 5, 6, 7, 8]", "x = 12345678", "0xDEADBEEF12345678", "1e10", "1609459200", "QQ 12345678"),
    ],
)
def test_ordinary_numbers_and_signs_are_not_personal(text: str) -> None:
    assert masked(text) == text
    assert masked(f"是 {text}。") == f"是 {text}。"


def test_every_hit_of_a_text_is_masked_once() -> None:
    text = "Lan: lan@gmail.com, 0912345678; 张三：zs@qq.com，13812345678，11010519491231002X"
    assert masked(text) == "Lan: <email>, <phone>; 张三：<email>，<phone>，<id_card>"
    assert masked(text, ["phone"]) == "Lan: lan@gmail.com, <phone>; 张三：zs@qq.com，<phone>，11010519491231002X"
    assert [hit.kind for hit in hits(text)] == ["email", "phone", "email", "phone", "id_card"]


def test_masking_goes_over_every_message_and_input_and_the_report_counts_by_kind() -> None:
    place = at()
    step = personal(PersonalStep(), place)
    asks = Message("user", "Gọi 0912345678", input="lan@gmail.com")
    row = Conversation((Message("system", "You are a@b.vn"), asks, Message("assistant", "OK 0912345678")), "mine", "vi", "a:1")
    found = only(step, row)
    assert texts(found) == ["You are <email>", "Gọi <phone>", "OK <phone>"]
    assert found.messages[1].input == "<email>"
    assert place.report == {"email": 2, "phone": 2, "ip": 0, "id_card": 0, "card": 0}
    clean = chat("你好", "你好")
    assert only(step, clean) is clean


def test_a_reply_goes_with_its_question() -> None:
    step = personal(PersonalStep(action="remove_reply"), at())
    row = chat("一", "二", "你的电话？", "13812345678", "mail: a@b.cn", "ok", "七", "八", system="好")
    assert texts(only(step, row)) == ["好", "一", "二", "七", "八"]
    assert reason(step(chat("Số của bạn?", "0912345678, a@b.vn"))) == ("personal data", "email, phone")


def test_what_is_in_no_reply_drops_the_conversation() -> None:
    step = personal(PersonalStep(action="remove_reply"), at())
    assert reason(step(chat("一", "二", system="a@b.cn"))) == ("personal data", "email")
    assert reason(step(document("Thư: a@b.vn"))) == ("personal data", "email")


def test_a_conversation_goes_when_asked_and_only_for_the_kinds_named() -> None:
    step = personal(PersonalStep(action="drop", kinds=["email"]), at())
    assert reason(step(chat("一", "a@b.cn"))) == ("personal data", "email")
    row = chat("一", "13812345678")
    assert only(step, row) is row


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^personal\.kinds: got mail; expected some of email, phone, .*; try email"):
        personal(PersonalStep(kinds=["mail"]), at())


@settings(deadline=None)
@given(st.dates(date(1920, 1, 1), date(2020, 1, 1)), st.integers(0, 999))
def test_one_of_eleven_check_digits_fits_an_identity_card(born: date, serial: int) -> None:
    number = f"440305{born:%Y%m%d}{serial:03}"
    assert [is_cn_id_card(number + check) for check in "0123456789X"].count(True) == 1


@settings(deadline=None)
@given(st.integers(10**14, 10**15 - 1))
def test_one_of_ten_check_digits_fits_a_payment_card(number: int) -> None:
    assert [passes_luhn(f"{number}{check}") for check in range(10)].count(True) == 1


def test_an_identity_card_of_vietnam_has_a_province_and_a_year_that_was() -> None:
    assert is_vn_id_card("079093001234")
    assert is_vn_id_card("001305012345")
    assert not is_vn_id_card("003093001234")
    assert not is_vn_id_card("079399001234")
    assert not is_vn_id_card("079493001234")


@settings(deadline=None)
@given(st.integers(1, 10**9 - 1))
def test_numbers_of_fewer_than_ten_digits_are_never_personal(number: int) -> None:
    assert masked(f"{number} và {number:,} và {number / 1000}") == f"{number} và {number:,} và {number / 1000}"


@settings(deadline=None)
@given(TEXTS)
def test_nothing_is_left_after_masking_and_what_is_around_stays(text: str) -> None:
    found = hits(text)
    clean = masked(text)
    assert masked(clean) == clean or len(hits(clean)) < max(1, len(found))
    if not found:
        assert clean == text


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_removal_never_leaves_an_empty_answer(one: str, other: str) -> None:
    row = chat("一", one, "二", other)
    (found,) = personal(PersonalStep(action="remove_reply"), at())(row)
    if isinstance(found, Conversation) and found is not row:
        assert any(message.role == "assistant" and message.text.strip() for message in found.messages)
        assert not any(hits(message.text) for message in found.messages)
