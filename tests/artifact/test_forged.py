"""A stranger's file is data: whatever its header says, loading it runs no code that it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from forgery import Sound, mutated, outcome, read, signed, sound_files
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

import randprune as rp
from randprune.lineage import named_tensors

# RANDPRUNE_FUZZ=10000 searches for new examples; by default the same ones are run every time.
WANTED = int(os.environ.get("RANDPRUNE_FUZZ", "0"))
KINDS = ("named", "twice", "graph", "widened", "dense")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sound]:
    return sound_files(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def forge(sound: dict[str, Sound], tmp_path: Path) -> Any:
    """Writes a sound file of one kind with another header: (path, what it was)."""

    def write(kind: str, change: Any) -> tuple[Path, Sound]:
        base = sound[kind]
        header = {**base.header}
        changed = change(header)
        return signed(tmp_path / "forged.safetensors", changed or header, base.tensors), base

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_forged_is_sound_before(kind: str, forge: Any) -> None:
    path, base = forge(kind, lambda header: None)
    assert outcome(path, base, base.header) == "equal network"


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("os:system", {"command": "touch ran"}),
        ("subprocess:check_output", {"args": ["touch", "ran"]}),
        ("shutil:rmtree", {"path": "precious"}),
        ("torch.hub:load", {"repo_or_dir": ".", "model": "x", "source": "local"}),
        ("planted:anything", {}),
        ("builtins:eval", {}),
        ("planted.deep:a.b", {}),
    ],
)
def test_code_that_a_file_names_is_not_run(
    model: str,
    options: dict[str, Any],
    forge: Any,
    run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.py").write_text("open('ran', 'w')")
    (tmp_path / "hubconf.py").write_text("open('ran', 'w')")
    (tmp_path / "precious").mkdir()
    path, _ = forge("named", lambda header: header | {"model": model, "options": options})
    with pytest.raises(rp.ArtifactError, match="code is never run because a file names it"):
        rp.load(path)
    code, _, error = run("export", str(path), "-o", "out.pt2")
    assert code == rp.ArtifactError.exit_code
    assert "If you know and trust that function, pass it" in error
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "precious").exists()
    assert not (tmp_path / "out.pt2").exists()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("timm:hf-hub:someone/network", {}, "is not that of a known network"),
        ("timm:local-dir:/etc", {}, "is not that of a known network"),
        ("timm:../../etc", {}, "is not that of a known network"),
        ("timm:no_such_network", {}, "Unknown model"),
        ("torchvision:models.resnet18", {}, "is not that of a known network"),
        ("torchvision:get_model", {}, "Unknown model"),
        ("torchvision:fcn_resnet50", {}, "Unknown model"),
        ("randprune:", {}, "is not that of a known network"),
        ("randprune:__class__", {}, "Unknown model"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "declares no option 'weights'"),
        ("torchvision:resnet18", {"weights": None}, "declares no option 'weights'"),
        ("timm:resnet18", {"pretrained": True}, "declares no option 'pretrained'"),
        ("timm:resnet18", {"checkpoint_path": "x.pth"}, "declares no option 'checkpoint_path'"),
        ("timm:resnet18", {"pretrained_cfg": {"file": "x"}}, "declares no option 'pretrained_cfg'"),
        ("timm:resnet18", {"cache_dir": "/"}, "declares no option 'cache_dir'"),
        ("timm:resnet18", {"features_only": True}, "declares no option 'features_only'"),
        ("timm:resnet18", {"block": "os.system"}, "cannot be 'os.system'"),
        ("timm:resnet18", {"layers": [2, 2, 2, 2**40]}, "cannot be"),
        ("timm:resnet18", {"layers": [9999, 9999, 9999, 9999]}, "far larger"),
        ("torchvision:resnet18", {"width_per_group": "64"}, "declared as"),
        ("torchvision:resnet18", {"zero_init_residual": 1}, "declared as"),
        ("torchvision:resnet18", {"norm_layer": "os.system"}, "cannot be"),
        ("torchvision:resnet18", {"num_classes": 2**40}, r"must be an integer in 1\.\."),
        ("torchvision:resnet18", {"num_classes": 2**20}, "far larger"),
        ("randprune:resnet20", {"widths": [1, 2, 2**30]}, "cannot be"),
        ("randprune:resnet20", {"widths": [2**20, 2**20, 2**20]}, "far larger|cannot be made"),
        ("randprune:resnet20", {"blocks": 10**6}, "declares no option|cannot be made"),
        ("randprune:resnet20", {"num_classes": True}, "must be an integer"),
        ("randprune:digits_cnn", {"spec": "os:system"}, "declares no option 'spec'"),
    ],
)
def test_names_and_options_are_checked_before_anything_is_built(
    model: str, options: dict[str, Any], message: str, forge: Any
) -> None:
    path, _ = forge("named", lambda header: header | {"model": model, "options": options})
    with pytest.raises(rp.ArtifactError, match=message):
        rp.load(path)


def test_declared_options_of_the_right_type_are_taken(tmp_path: Path) -> None:
    from randprune.zoo.models import build_model

    for model, options in (
        ("torchvision:resnet18", {"width_per_group": 64, "zero_init_residual": True}),
        ("randprune:resnet20", {"widths": [4, 8, 8], "num_classes": 3}),
        ("timm:resnet18", {"num_classes": 3, "in_chans": 1, "drop_rate": 0.1}),
    ):
        torch.manual_seed(0)
        network = build_model(model, **options)
        path = rp.save(network, tmp_path / "x.safetensors", model=model, options=options)
        assert named_tensors(rp.load(path)).keys() == named_tensors(network).keys()


def test_the_callers_own_function_gets_no_paths_from_the_file(
    forge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "callers.py").write_text(
        "from randprune.zoo.models import build_model\n"
        "def make(num_classes=10, pretrained_from=''):\n"
        "    assert not pretrained_from\n"
        "    return build_model('randprune:digits_cnn', num_classes=num_classes)\n"
    )
    path, _ = forge("named", lambda header: header | {"model": "callers:make"})
    assert rp.load(path, "callers:make").linear.out_features == 4
    bad = {"num_classes": 4, "pretrained_from": "/etc/passwd"}
    path, _ = forge("named", lambda header: header | {"model": "callers:make", "options": bad})
    with pytest.raises(rp.ArtifactError, match="'pretrained_from' = '/etc/passwd', which is not"):
        rp.load(path, "callers:make")


def changed_slot(**values: Any) -> Any:
    """A change of the first slot of the first group."""

    def change(header: dict[str, Any]) -> dict[str, Any]:
        import copy

        header = copy.deepcopy(header)
        header["cuts"][0]["space"]["groups"][0]["slots"][0].update(values)
        return header

    return change


def changed(*path: Any, value: Any) -> Any:
    """A change of one value anywhere."""

    def change(header: dict[str, Any]) -> dict[str, Any]:
        import copy

        header = owner = copy.deepcopy(header)
        for key in path[:-1]:
            owner = owner[key]
        owner[path[-1]] = value
        return header

    return change


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("twice", changed("strides", "stem.weight", value=[0, 0, 0, 0]), "do not fill"),
        ("twice", changed("strides", "stem.weight", value=[9, 1]), "do not fill"),
        ("twice", changed("strides", "stem.weight", value=[2**62, 1, 1, 1]), "an integer in"),
        ("twice", changed("strides", "stem.weight", value=[-1, 1, 1, 1]), "an integer in"),
        ("twice", changed("strides", "absent", value=[1]), "no values of 'absent'"),
        ("twice", changed("strides", "stem.weight", value="abc"), "must be a list"),
        ("twice", changed("aliases", "b.weight", value="absent"), "a tensor it lacks"),
        ("twice", changed("aliases", "b.weight", value="head.weight"), "its cuts leave"),
        ("twice", changed("aliases", "training", value="head.weight"), "disagree"),
        ("twice", changed("aliases", "stem.weight", value=3), "must be a text"),
        ("twice", changed("gained", "head.forward", value=[1]), "cannot have gained"),
        ("twice", changed("gained", "training", value=[1]), "cannot have gained"),
        ("twice", changed("gained", "head.weight", value=[1]), "cannot have gained"),
        ("twice", changed("gained", "nowhere.bias", value=[1]), "cannot have gained"),
        ("twice", changed("gained", "", value=[1]), "cannot have gained"),
        ("twice", changed("gained", "head._x", value=[1]), "cannot have gained"),
        ("twice", changed("gained", "head.big", value=[2**31, 2**31]), "needs .* GiB"),
        ("twice", changed("cuts", 1, "gained", "stem.bias", value=[99]), "cannot be repeated|its"),
        ("twice", changed("cuts", 0, "space", "inputs", value=[[[9**9], "float32"]]), "elements"),
        ("twice", changed("cuts", 0, "space", "inputs", value=[[[2], "load"]]), "a dtype"),
        ("twice", changed("cuts", 0, "space", "groups", 0, "width", value=3), "places for 3"),
        ("twice", changed("cuts", 0, "selection", "kept", 0, value=[0, 0]), "sorted, distinct"),
        ("twice", changed("cuts", 0, "selection", "kept", 0, value=[7, 8]), "within 0..7"),
        ("twice", changed("cuts", 0, "selection", "kept", 0, value=[0.5]), "an integer"),
        ("twice", changed("cuts", 0, "selection", "kept", 0, value=[]), "at least one"),
        ("twice", changed("cuts", 0, "selection", "kept", 0, value=[10**30]), "an integer"),
        (
            "twice",
            changed("cuts", 0, "selection", "kept", 0, value=[0]),
            "cuts leave|up to position",
        ),
        ("twice", changed("cuts", 0, "as_graph", value=True), "."),
        ("twice", changed("cuts", 0, "space", "costs", "macs", "full", value=[1]), "widths"),
        ("twice", changed("dense", value={}), "another network"),
        ("twice", changed("class", value="\x1b[31mred"), "printable"),
        ("twice", changed_slot(index=[[0, 1, 10**12]]), "an integer in|places"),
        ("twice", changed_slot(index=[[0, 1, 2**30]]), "places of channels"),
        ("twice", changed_slot(index=[[0, 0, 8]]), "one place"),
        ("twice", changed_slot(index=[[1, 1, 8]]), "up to position 8"),
        ("twice", changed_slot(tensor="absent"), "no such tensor"),
        ("twice", changed_slot(tensor="stem"), "no such tensor"),
        ("twice", changed_slot(dim=9), "axis 9"),
        ("twice", changed_slot(dim=-1), "an integer in"),
        ("twice", changed_slot(role="boss"), "role"),
        ("named", changed("cuts", value=[[]] * 5000), "at most 1,000 entries"),
        ("named", changed("cuts", 0, "space", "groups", value=[{}] * 5000), "at most 4,096"),
        ("widened", changed("cuts", 0, "wide", "groups", value=[]), "other groups|widths"),
    ],
)
def test_every_value_of_the_header_is_checked_before_its_use(
    kind: str, change: Any, message: str, forge: Any
) -> None:
    path, base = forge(kind, change)
    with pytest.raises(rp.ArtifactError, match=message):
        rp.load(path, base.model)


def test_a_cut_whose_parts_do_not_fit_is_refused_when_loaded(
    sound: dict[str, Sound], tmp_path: Path
) -> None:
    """A forged space leaves a layer's inputs alone: such a file once loaded, and failed later."""
    import copy

    base = sound["dense"]
    network = base.model().eval()  # type: ignore[misc]
    network.load_state_dict(base.tensors, strict=False)
    space = rp.trace(network, base.images)
    kept = tuple(torch.arange(0, width, 2).numpy() for width in space.widths.tolist())
    small = rp.cut(network, space, rp.Selection(kept, space.fingerprint))
    header, tensors = read(rp.save(small, tmp_path / "x.safetensors"))
    header = copy.deepcopy(header)
    for group in header["cuts"][0]["space"]["groups"]:
        group["slots"] = [slot for slot in group["slots"] if slot["tensor"] != "head.weight"]
    tensors["head.weight"] = base.tensors["head.weight"]
    path = signed(tmp_path / "forged.safetensors", header, tensors)
    with pytest.raises(rp.ArtifactError, match=r"does not run .*its cuts do not fit each other"):
        rp.load(path, base.model)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stem.weight", lambda t: t.flatten(), "its cuts leave"),
        ("stem.weight", lambda t: t.to(torch.int8), "the network has torch.float32"),
        ("stem.weight", lambda t: t.to(torch.float8_e4m3fn), "the network has torch.float32"),
        ("norm.num_batches_tracked", lambda t: t.float(), "the network has torch.int64"),
    ],
)
def test_tensors_of_another_shape_or_kind(
    name: str, change: Any, message: str, sound: dict[str, Sound], tmp_path: Path
) -> None:
    base = sound["widened"]
    tensors = base.tensors | {name: change(base.tensors[name])}
    path = signed(tmp_path / "forged.safetensors", base.header, tensors)
    with pytest.raises(rp.ArtifactError, match=message):
        rp.load(path, base.model)


@pytest.mark.parametrize("content", ["[" * 100_000, "3", "null", '{"format": 1}', '{"a": NaN}', ""])
def test_documents_that_are_no_header(content: str, tmp_path: Path) -> None:
    import safetensors.torch

    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"randprune": content})
    with pytest.raises(rp.ArtifactError, match=r"damaged or forged|does not match|has format"):
        rp.load(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(rp.ArtifactError, match="is not a regular file"):
        rp.load("/dev/zero")
    with pytest.raises(rp.ArtifactError, match="cannot be read: embedded null"):
        rp.load("a\0b")
    with pytest.raises(rp.ArtifactError, match="does not exist"):
        rp.load(os.fsdecode(b"\xff.safetensors"))


@pytest.mark.timeout(0 if WANTED else 900)
@settings(
    max_examples=WANTED or 200,
    derandomize=not WANTED,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(drawn=st.data())
def test_a_fuzzed_header_is_refused_or_gives_an_equal_network(
    sound: dict[str, Sound], tmp_path_factory: pytest.TempPathFactory, drawn: st.DataObject
) -> None:
    base = sound[drawn.draw(st.sampled_from(KINDS))]
    header = drawn.draw(mutated(base.header))
    path = signed(tmp_path_factory.getbasetemp() / "fuzzed.safetensors", header, base.tensors)
    outcome(path, base, header)
