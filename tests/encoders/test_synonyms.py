"""Synonyms change queries: by the rules of Solr's and WordNet's files, with a lower weight, and without a new index."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.encoders import make_encoder, query_digest
from hybridsearch.encoders.synonyms import WEIGHT, Line, Synonyms, parse_rule, read_synonyms
from hybridsearch.errors import InvalidArgumentError


def terms(synonyms: Any, query: str, **options: Any) -> dict[str, float]:
    return dict(hs.BM25(synonyms=synonyms, **options).decode(query))


# What a query becomes


def test_words_of_a_rule_find_each_other() -> None:
    rules = ["car, automobile, auto"]
    assert terms(rules, "red car") == {"red": 1, "car": 1, "automobil": 0.5, "auto": 0.5}
    assert terms(rules, "red automobiles") == {"red": 1, "car": 0.5, "automobil": 1, "auto": 0.5}
    assert terms(rules, "red train") == {"red": 1, "train": 1}


def test_a_mapping_works_from_its_keys_to_its_values() -> None:
    mapping = {"car": ["automobile", "auto"], "tv": "television"}
    assert terms(mapping, "car") == {"car": 1, "automobil": 0.5, "auto": 0.5}
    assert terms(mapping, "automobile") == {"automobil": 1}
    assert terms(mapping, "tv") == {"tv": 1, "televis": 0.5}


def test_words_before_an_arrow_are_replaced_unless_they_follow_it_too() -> None:
    assert terms(["tv, telly => television"], "a new telly") == {"new": 1, "televis": 1}
    assert terms(["tv => tv, television"], "tv") == {"tv": 1, "televis": 0.5}
    assert terms(["colour => color", "colour => hue"], "colour") == {"color": 1, "hue": 1}


def test_several_words_are_matched_in_order_and_share_their_weight() -> None:
    rules = ["heart attack, myocardial infarction, MI"]
    assert terms(rules, "heart attack") == {"heart": 1, "attack": 1, "myocardi": 0.5, "infarct": 0.5, "mi": 1}
    assert terms(rules, "signs of MI") == {
        "sign": 1,
        "mi": 1,
        "heart": 0.25,
        "attack": 0.25,
        "myocardi": 0.25,
        "infarct": 0.25,
    }
    for query in ("attack heart", "heart of an attack", "heart"):
        assert terms(rules, query) == terms([], query)
    assert terms(rules, "Heart-Attacks!") == terms(rules, "heart attack")


def test_the_longest_rule_wins_and_the_search_goes_on_behind_it() -> None:
    rules = ["new => recent", "new york => big apple", "york => city"]
    assert terms(rules, "new york new") == {"big": 1, "appl": 1, "recent": 1}
    assert terms(rules, "york new") == {"citi": 1, "recent": 1}


def test_synonyms_of_synonyms_are_not_looked_up() -> None:
    assert terms(["a1 => b1", "b1 => c1"], "a1") == {"b1": 1}


def test_stop_words_count_in_rules_of_several_words() -> None:
    rules = ["out of order, broken"]
    assert terms(rules, "it is out of order") == {"order": 1, "broken": 0.5}
    assert terms(rules, "an order") == {"order": 1}
    assert terms(["it => information technology"], "IT support") == {"support": 1, "inform": 0.5, "technolog": 0.5}


def test_a_term_in_two_synonyms_of_the_same_words_counts_once() -> None:
    assert terms(["heart attack, heart failure, heart block"], "heart attack") == {
        "heart": 1, "attack": 1, "failur": 0.5, "block": 0.5
    }  # fmt: skip


def test_each_occurrence_adds_its_synonyms() -> None:
    assert terms(["car, auto"], "car car auto") == {"car": 2.5, "auto": 2}


def test_scripts_without_spaces_have_synonyms() -> None:
    assert terms(["東京, Tokyo"], "東京", language=None) == {"東京": 1, "tokyo": 0.5}
    assert terms(["東京, Tokyo"], "TOKYO", language=None) == {"tokyo": 1, "東京": 0.5}


def test_identifiers_and_tokenizers_of_your_own_have_synonyms() -> None:
    weights = terms(["k8s, kubernetes", "C++, cpp"], "k8s in C++")
    assert {"kubernet", "cpp"} < weights.keys()
    own = hs.Tokenizer("upper", lambda text: text.upper().split("-"))
    assert terms(["a-b, c"], "x-A-B", language="english", tokenizer=own) == {"X": 1, "A": 1, "B": 1, "C": 1}


WORDS = st.lists(st.sampled_from(["a", "b", "c", "the"]), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=3), st.lists(WORDS, max_size=3)), max_size=4), WORDS)
def test_synonyms_add_a_bounded_weight_and_never_lose_a_word(rules: list[Any], query: list[str]) -> None:
    lines = []
    for left, right in rules:
        sides = [", ".join(map(" ".join, side)) for side in (left, [*left, *right])]
        lines.append(Line(" => ".join(sides), "a rule"))
    synonyms = Synonyms(lines, str.split)

    weights, expansions = synonyms.expand(query)

    count = Counter(query)
    assert list(weights)[:1] == query[:1], "terms are in the order of first occurrence"
    assert all(weights.get(word, 0) >= times for word, times in count.items())
    most = sum(len(one.synonyms) for one in expansions) * len(query) * WEIGHT
    assert sum(weights.values()) <= len(query) + most + 1e-9
    assert not expansions or not any(one.replaced for one in expansions)


# Formats


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("a, b c ,d", (["a", "b c", "d"], ["a", "b c", "d"])),
        ("a=>b", (["a"], ["b"])),
        ("a,b => c, d e", (["a", "b"], ["c", "d e"])),
        (r"a\,b, c", (["a,b", "c"], ["a,b", "c"])),
        (r"a \=> b => c", (["a => b"], ["c"])),
        (r"c:\\x, drive", (["c:\\x", "drive"], ["c:\\x", "drive"])),
        ("x=1, y", (["x=1", "y"], ["x=1", "y"])),
    ],
)
def test_rules_are_parsed_as_in_solr(text: str, sides: tuple[list[str], list[str]]) -> None:
    assert parse_rule(Line(text, "rule 1")) == sides


@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=1, max_size=3), max_size=3))
def test_words_of_a_mapping_are_taken_literally(mapping: dict[str, list[str]]) -> None:
    lines = read_synonyms(mapping)
    for line, (word, synonyms) in zip(lines, mapping.items(), strict=True):
        if all(name.strip() for name in [word, *synonyms]):
            assert parse_rule(line) == ([word.strip()], [name.strip() for name in [word, *synonyms]])


def test_a_file_of_solr_is_read(tmp_path: Path) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_bytes("\ufeff# cars\r\n\r\ncar, automobile\r\n  # more\ntv => television\nfür, wegen".encode())
    assert [line.text for line in read_synonyms(file)] == ["car, automobile", "tv => television", "für, wegen"]
    assert terms(str(file), "car tv") == {"car": 1, "automobil": 0.5, "televis": 1}


def test_a_file_of_wordnet_is_read(tmp_path: Path) -> None:
    file = tmp_path / "wn_s.pl"
    file.write_text(
        "s(100001740,1,'entity',n,1,11).\n"
        "s(102961779,1,'car',n,1,71).\n"
        "s(102961779,2,'motor car',n,1,0).\n"
        "s(102961779,3,'horse''s cart, old',n,1,0).\n"
        "s(300009618,1,'again',r,1).\n"
        "s(300009618,2,'once again',r,1).\n"
    )
    assert terms(file, "entity") == {"entiti": 1}
    sixths = dict.fromkeys(["hors", "cart", "old"], pytest.approx(1 / 6))
    assert terms(file, "car") == {"car": 1, "motor": 0.25} | sixths
    assert terms(file, "again and once again") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a, b\n\ncar", r"s\.txt, line 3: 'car' has no synonym"),
        ("a => b => c", r"s\.txt, line 1: .* more than one '=>'"),
        ("a, , b", "line 1: .* nothing before or after a comma"),
        ("=> b", "line 1: .* nothing before or after"),
        ("a, b\\", "line 1: .* ends with a backslash"),
        ("# c\na, !!", "line 2: '!!' has no word"),
        ("tv => the", "line 1: 'the' cannot be found, because each word is a stop word"),
        ("s(1,1,'a',n,1,0).\ns(1,2,b,n,1,0).", "line 2: .* is not a line of WordNet"),
    ],
)
def test_a_malformed_line_is_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "s.txt"
    file.write_text(content)
    with pytest.raises(InvalidArgumentError, match=message):
        hs.BM25(synonyms=file)


def test_other_values_are_refused(tmp_path: Path) -> None:
    for bad in (5, b"car", ["car, auto", 5], {"car": 5}, {"car": []}, {5: "car"}, [["car", "auto"]]):
        with pytest.raises(InvalidArgumentError, match="synonyms"):
            hs.BM25(synonyms=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"nowhere\.txt cannot be read \(No such file"):
        hs.BM25(synonyms="nowhere.txt")
    (tmp_path / "latin").write_bytes("für, wegen".encode("latin-1"))
    with pytest.raises(InvalidArgumentError, match="is not in UTF-8"):
        hs.BM25(synonyms=tmp_path / "latin")


# In an index

DOCUMENTS = [
    hs.Document("mi", "Aspirin after a myocardial infarction."),
    hs.Document("heart", "Aspirin for the heart."),
    hs.Document("panic", "An attack of panic."),
    hs.Document("other", "Something else."),
]
RULES = ["heart attack, myocardial infarction"]


def test_synonyms_are_recorded_explained_and_noted(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25(synonyms=RULES)}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
    with hs.open(tmp_path / "index") as search:
        results = search.search("heart attacks")
        assert set(results.ids) == {"mi", "heart", "panic"}
        assert results.notes == ("bm25: synonyms were searched: myocardial infarction (beside heart attack).",)
        explained = {one.id: set(one.terms["bm25"]) for one in results.explain()}
        assert explained == {"mi": {"myocardi", "infarct"}, "heart": {"heart"}, "panic": {"attack"}}
        assert search.search("panic").notes == ()


def test_synonyms_change_without_a_new_index(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
        assert search.search("dread").ids == []
        bm25 = search.retrievers["bm25"]
        assert isinstance(bm25, hs.BM25)
    with hs.open(tmp_path / "index", retrievers={"bm25": bm25.with_synonyms({"dread": "panic"})}) as search:
        assert search.search("dread").ids == ["panic"]
        search.upsert([hs.Document("new", "panic panic")])
        assert search.search("dread").ids == ["new", "panic"]
    with hs.open(tmp_path / "index") as search:
        assert search.search("dread").ids == []


def test_synonyms_are_of_queries_alone() -> None:
    plain, own = hs.BM25(), hs.BM25(synonyms=RULES)
    assert plain.fingerprint() == own.fingerprint()
    assert query_digest(plain) == plain.fingerprint().digest != query_digest(own)
    assert query_digest(own) != query_digest(own.with_synonyms(["a, b"]))
    assert query_digest(own.with_synonyms(None)) == query_digest(plain)
    assert "synonyms" not in (plain.schema().encoder or {})
    for again in (pickle.loads(pickle.dumps(own)), make_encoder(json.loads(json.dumps(own.schema().encoder)))):  # noqa: S301
        assert isinstance(again, hs.BM25)
        assert again.decode("heart attack") == own.decode("heart attack")


def test_very_long_synonyms_are_not_recorded_and_this_is_said() -> None:
    bm25 = hs.BM25(synonyms=[f"word{n}, {'x' * 990}{n}" for n in range(1100)])
    with pytest.warns(match="does not record the synonyms"):
        schema = bm25.schema()
    assert schema.encoder is not None
    assert "synonyms" not in schema.encoder


def test_a_rule_of_many_words_takes_memory_for_each_word_once() -> None:
    words = [f"w{n}" for n in range(5000)]
    tracemalloc.start()
    encoder = hs.BM25(synonyms=[", ".join(words)])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20_000_000
    assert set(encoder.encode_queries(["w7"])[0].terms) == set(words)
