"""What import_booster promises: the answers of the release that wrote a file, or a reason."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import xgboost

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import import_booster

RELEASES = ["0.90", "1.0.2", "1.2.1", "1.3.3", "1.5.2", "1.7.6", "2.1.4", "3.0.5", "3.2.0"]


@pytest.mark.parametrize("release", RELEASES)
def test_every_file_of_a_release_is_answered_as_that_release_answered(release, stock, predict):
    entries = stock.of(release)
    assert len(entries) > 50
    wrong = []
    for entry in entries:
        if entry["refused"]:
            continue
        expected = stock.expected(entry)
        got = predict(import_booster(stock.files[entry["file"]], entry["file"]).document, stock.probe(entry))
        error = np.abs(got.reshape(expected.shape) - expected).max() / max(np.abs(expected).max(), 1e-30)
        if not error <= 1e-5:
            wrong.append((entry["file"], error))
    assert not wrong


@pytest.mark.parametrize("release", RELEASES)
def test_what_cannot_be_answered_as_its_release_did_is_refused(release, stock):
    for entry in stock.of(release):
        if entry["refused"]:
            with pytest.raises((ArtifactRefused, ArtifactBroken)):
                import_booster(stock.files[entry["file"]], entry["file"])


def test_all_formats_of_one_booster_become_one_document(stock):
    suffixes = (".deprecated", ".json", ".ubj", ".pkl")
    documents = {import_booster(stock.files[f"xgboost-1.7.6/forest{s}"], "x").document for s in suffixes}
    assert len(documents) == 1


def test_what_xgboost_writes_back_imports_to_the_same_document(stock):
    """The runtime loads only what libxgboost re-serialised, so that text must be one we would write, too."""
    for case in (
        "squarederror",
        "softprob",
        "dart",
        "gblinear",
        "categorical",
        "targets",
        "quantiles",
        "no_trees",
        "vector_leaves",
    ):
        imported = import_booster(stock.files[f"xgboost-3.0.5/{case}.ubj"], case)
        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(imported.document))
        again = import_booster(bytes(booster.save_raw("ubj")), case)
        assert again.document == imported.document, case


def test_facts_say_what_the_booster_is(stock):
    facts = import_booster(stock.files["xgboost-1.7.6/forest.ubj"], "x").facts
    assert (facts.format, facts.release, facts.booster, facts.objective) == (
        "ubj",
        (1, 7, 6),
        "gbtree",
        "multi:softprob",
    )
    assert (facts.n_features, facts.n_classes, facts.n_outputs, facts.n_trees, facts.n_rounds) == (6, 4, 4, 32, 4)
    assert not facts.is_categorical
    assert facts.best_iteration == 3  # 1.4 to 1.7 note it without early stopping, too
    assert import_booster(stock.files["xgboost-1.7.6/categorical.ubj"], "x").facts.is_categorical
    named = import_booster(stock.files["xgboost-1.7.6/names.json"], "x").facts
    assert named.feature_names == ("a b", "c", "d", "é", "e", "f")
    assert import_booster(stock.files["xgboost-3.0.5/targets.ubj"], "x").facts.n_outputs == 2
    linear = import_booster(stock.files["xgboost-1.2.1/gblinear.json"], "x").facts
    assert (linear.booster, linear.n_trees) == ("gblinear", 0)


@pytest.mark.parametrize("release", ["0.90", "1.0.2", "1.2.1", "1.3.3", "1.5.2", "1.7.6", "3.0.5"])
def test_rounds_of_an_early_stopped_forest_are_counted_in_rounds_when_it_comes_as_a_pickle(release, stock):
    facts = import_booster(stock.files[f"xgboost-{release}/early.pkl"], "x").facts
    assert facts.best_iteration is not None
    assert facts.n_trees == facts.n_rounds * 3
    assert facts.best_iteration < facts.n_rounds


@pytest.mark.parametrize("release", ["0.90", "1.0.2", "1.2.1", "1.3.3"])
def test_names_made_up_by_old_releases_are_dropped_and_real_ones_kept(release, stock):
    assert import_booster(stock.files[f"xgboost-{release}/hinge.pkl"], "x").facts.feature_names == ()
    names = import_booster(stock.files[f"xgboost-{release}/names.pkl"], "x").facts.feature_names
    assert names == ("a b", "c", "d", "é", "e", "f")


@pytest.mark.parametrize("version", [[3, 3, 0], [4, 0, 0], [999, 0, 0]])
def test_a_booster_of_a_newer_release_is_refused_by_its_version(version, json_bytes):
    document = json.loads(json_bytes)
    document["version"] = version
    with pytest.raises(ArtifactRefused, match=f"XGBoost {version[0]}.{version[1]}"):
        import_booster(json.dumps(document).encode(), "s3://acme/new.json")


def test_a_patch_release_of_the_newest_is_served(json_bytes):
    document = json.loads(json_bytes)
    document["version"] = [3, 2, 7]
    assert import_booster(json.dumps(document).encode(), "x").facts.release == (3, 2, 7)


def test_the_error_names_the_artifact():
    with pytest.raises(ArtifactBroken, match=r"s3://acme/houston\.ubj"):
        import_booster(b"no booster", "s3://acme/houston.ubj")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{L", b"\x80", b"\x80\x04", b"binf", b"bs64", b"CONFIG-offset:", b"\0" * 300]
)
def test_the_shortest_files_are_broken_or_refused_and_nothing_else(data):
    with pytest.raises((ArtifactBroken, ArtifactRefused)):
        import_booster(data, "x")


def test_every_truncation_of_every_format_is_broken(stock):
    for suffix in (".deprecated", ".json", ".ubj", ".pkl"):
        whole = stock.files[f"xgboost-1.7.6/squarederror{suffix}"]
        for cut in {*range(0, len(whole), 97), len(whole) - 1}:
            with pytest.raises((ArtifactBroken, ArtifactRefused)):
                import_booster(whole[:cut], "x")


@pytest.mark.parametrize("suffix", [".deprecated", ".json", ".ubj"])
def test_bytes_behind_the_booster_are_not_ignored(suffix, stock):
    with pytest.raises(ArtifactBroken):
        import_booster(stock.files[f"xgboost-1.7.6/squarederror{suffix}"] + b"\x01", "x")


def test_half_a_surrogate_pair_in_a_name_is_broken(json_bytes):
    document = json.loads(json_bytes)
    document["learner"]["attributes"]["note"] = "\ud800"
    document["learner"]["attributes"]["other"] = float("nan")  # sends it to the slow JSON parser, which lets it through
    with pytest.raises(ArtifactBroken):
        import_booster(json.dumps(document).encode(), "x")
    head = b"\x80\x02cxgboost.core\nBooster\n)\x81}("
    handle = b"X\x06\0\0\0handleB" + len(json_bytes).to_bytes(4, "little") + json_bytes
    names = b"X\x0d\0\0\0feature_names](" + b"X\x03\0\0\0\xed\xa0\x80" * 4 + b"e"
    assert import_booster(head + handle + b"ub.", "x")
    with pytest.raises(ArtifactBroken, match="no text"):
        import_booster(head + handle + names + b"ub.", "x")


@pytest.mark.parametrize("rounds", [-1, 2**31, 2**63, 2**64, 2**200, 1.5, "1", None])
def test_a_round_count_of_gblinear_that_is_none_is_broken(rounds, stock):
    document = json.loads(stock.files["xgboost-1.7.6/gblinear.json"])
    document["learner"]["gradient_booster"]["model"]["boosted_rounds"] = rounds
    with pytest.raises(ArtifactBroken):
        import_booster(json.dumps(document).encode(), "x")


def test_a_compressed_joblib_file_says_the_way_out():
    with pytest.raises(ArtifactRefused, match="save_model"):
        import_booster(zlib.compress(b"\x80\x04xgboost"), "x")


def test_categories_of_a_data_frame_are_facts(json_bytes):
    document = json.loads(json_bytes)
    model = document["learner"]["gradient_booster"]["model"]
    model["cats"] = {"enc": [{"type": 11, "values": [1, 2]}], "feature_segments": [0, 2], "sorted_idx": [0, 1]}
    assert import_booster(json.dumps(document).encode(), "x").facts.categories == ((0, (1, 2)),)
    model["cats"]["enc"] = [{"offsets": [0, 1, 3], "values": [97, 98, 99]}]
    assert import_booster(json.dumps(document).encode(), "x").facts.categories == ((0, ("a", "bc")),)


@pytest.mark.parametrize(
    "enc",
    [
        7,
        [1],
        [{"type": 11}],
        [{"type": 11, "values": ["a"]}],
        [{"type": 11, "values": [1, 1]}],
        [{"type": 11, "values": [[1], [2]]}],
        [{"offsets": [0, 5], "values": [97]}],
        [{"offsets": [0, 2, 1], "values": [97]}],
        [{"offsets": [0, 1, 2], "values": [97, 97]}],
        [{"type": 11, "values": []}] * 100,
    ],
)
def test_categories_that_make_no_sense_are_damage(enc, json_bytes):
    document = json.loads(json_bytes)
    document["learner"]["gradient_booster"]["model"]["cats"] = {"enc": enc}
    with pytest.raises(ArtifactBroken):
        import_booster(json.dumps(document).encode(), "x")
