"""Models by name: found, listed, promoted, and never outside the registry."""

from __future__ import annotations

import pytest

from microrisk.errors import ModelNotFound, UsageError
from microrisk.model.synthetic import random_weights
from microrisk.score import registry


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv(registry.ENV, str(tmp_path / "registry"))
    monkeypatch.setattr(registry, "PACKAGED", tmp_path / "package")
    random_weights(0).with_card(name="shipped").save(tmp_path / "package" / "default")
    random_weights(1).with_card(name="mine").save(tmp_path / "work" / "trial")
    return tmp_path


def test_packaged_default_without_registry(places):
    assert registry.find() == places / "package" / "default"
    assert registry.load_model().card["name"] == "shipped"
    assert [(e.name, e.origin, e.current) for e in registry.list_models()] == [("default", "package", True)]


def test_folder_and_unknown(places):
    assert registry.find(places / "work" / "trial") == places / "work" / "trial"
    with pytest.raises(ModelNotFound, match=r"no model 'nothing': .*known names are default"):
        registry.find("nothing")


def test_promote_copies_and_points(places):
    target = registry.promote(places / "work" / "trial")
    assert target == places / "registry" / "trial"
    assert registry.current_name() == "trial"
    assert registry.load_model().card["name"] == "mine"
    assert registry.load_model("default").card["name"] == "shipped"
    assert [(e.name, e.current) for e in registry.list_models()] == [("default", False), ("trial", True)]
    assert sorted(p.name for p in (places / "registry").iterdir()) == ["current", "trial"], "no scratch is left"


def test_promote_back_and_forth(places):
    registry.promote(places / "work" / "trial", "a")
    registry.promote(places / "work" / "trial", "b")
    assert registry.promote("a", "a").name == "a"
    assert registry.current_name() == "a"
    assert registry.show().name == "a"
    assert registry.show(places / "work" / "trial").origin == "folder"


def test_promote_keeps_what_is_there(places):
    registry.promote("default", "a")
    with pytest.raises(UsageError, match="already has a model 'a'"):
        registry.promote(places / "work" / "trial", "a")
    assert registry.load_model("a").card["name"] == "shipped"
    registry.promote(places / "work" / "trial", "a", replace=True)
    assert registry.load_model("a").card["name"] == "mine"


def test_promote_carries_the_float_network(places):
    (places / "work" / "trial" / "float.safetensors").write_bytes(b"x")
    assert (registry.promote(places / "work" / "trial", "a") / "float.safetensors").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/b", "..", ".hidden", "", "current", "a\\b", "x" * 65])
def test_names_cannot_leave_the_registry(places, name):
    if name:
        with pytest.raises(UsageError, match="no model name"):
            registry.promote(places / "work" / "trial", name)
    registry.registry_folder().mkdir(exist_ok=True)
    (registry.registry_folder() / "current").write_text(name)
    with pytest.raises(UsageError, match="no model name"):
        registry.find()
    assert sorted(p.name for p in places.iterdir()) == ["package", "registry", "work"]


def test_a_damaged_model_is_listed_with_its_problem(places):
    (places / "package" / "default" / "model.safetensors").write_bytes(b"damaged")
    (entry,) = registry.list_models()
    assert "not a readable safetensors file" in (entry.problem or "")
    with pytest.raises(ValueError, match="safetensors"):
        registry.promote("default", "x")
    assert not (registry.registry_folder() / "x").exists()
